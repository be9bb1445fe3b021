"""Stores that a report is made of: the sample, the sample with everything that is by choice, and hostile rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepsearch_data.pipeline.store import Store
from tests.conftest import run_cli

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'> <!--<script> \u2028 & \"'"
BY_CHOICE = (
    *("--engine", "bm25", "--engine", "chargram"),
    *("--set", "decompose.unanswerable=true"),
    *("--set", "trajectories.distractors=1.0"),
)


@pytest.fixture(scope="session")
def sample(sample_store: Path) -> Store:
    return Store.open(sample_store)


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The sample with two engines, searches that find nothing, and questions without an answer."""
    store = tmp_path_factory.mktemp("rich") / "store"
    built = run_cli("build", "--store", store, "--quiet", *BY_CHOICE)
    assert built.returncode == 0, built.stderr
    return Store.open(store)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One question whose every text tries to become markup, and a row that cannot be used."""
    folder = tmp_path_factory.mktemp("hostile")
    paragraph = {"title": f"Lodi {HOSTILE}", "text": f"Lodi was founded by Frederick Barbarossa. {HOSTILE}"}
    question = {
        "id": "q/1 <b>",
        "question": f"Who founded Lodi? {HOSTILE}",
        "answer": "Frederick Barbarossa",
        "paragraphs": [{**paragraph, "supporting": True}],
    }
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, [question, {**question, "id": "q2", "answer": HOSTILE * 2}])))
    store = folder / "store"
    build = ("build", "--store", store, "--quiet", "--source", f"jsonl={file}")
    built = run_cli(*build, "--set", "run.max_reject_share=1")
    assert built.returncode == 3, built.stderr
    return Store.open(store)

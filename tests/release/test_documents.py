"""The card of a release with questions from documents: what was left at each step, and what nobody has checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.audit import audit
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.documents import documents
from stepsearch_data.sql import connect
from tests.conftest import run_cli
from tests.releases import release


@pytest.fixture(scope="module")
def card(harvest: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("card") / "release"
    release(Store.open(harvest), folder, licences={"corpus": "cc-by-4.0"}, max_rejects=1)
    return (folder / "README.md").read_text()


def section(store: Path) -> str:
    opened = Store.open(store)
    with opened.reading() as manifest, connect(opened, manifest) as connection:
        return documents(connection, manifest, audit(opened))


def test_each_step_is_told_with_its_share_and_dollars(harvest: Path, card: str) -> None:
    for name, of in audit(Store.open(harvest))["by_funnel"].items():
        (line,) = (each for each in card.splitlines() if each.startswith(f"| {name.replace('_', chr(92) + '_')} |"))
        assert f"| {of['count']:,} |" in line
        assert of["dollars"] is None or line.endswith(f"| {of['dollars']:,.2f} | {of['dollars_each']:,.5f} |")


def test_models_prompts_and_samples_are_told(card: str) -> None:
    assert "mock wrote a question for each chain that was drawn." in card
    assert "mock was asked 3 times for each reading, at temperature 0.7; 2 samples decide." in card
    assert "5% of the questions went through all checks" in card
    assert "- compose: mock\n- verify: mock" in card
    assert all(f"Prompt {name}, SHA-256 " in card for name in ("compose", "recall", "read", "unique", "same"))
    assert "| corpus | `closed_book` | gate |" in card


def test_what_was_not_verified_is_said_in_plain_words(card: str) -> None:
    said = card.partition("Not verified:")[2].partition("##")[0]
    assert "The model that checked the questions is the one that wrote them" in said
    assert "nobody has read them all" in said
    assert "Nothing was asked" not in said
    assert "- Questions, hops or queries were written by a language model" in card


def test_questions_by_templates_that_no_model_has_read_are_no_secret(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert run_cli("build", "--store", store, "--quiet", "--source", "corpus=sample", "--to", "decide").returncode == 0
    said = section(store)
    assert "A template wrote a question for each chain" in said
    assert "not for training" in said
    assert "Nothing was asked for `closed_book`, `answerable`, `left_one_out`, `unique` of these questions." in said
    assert "68 of the 68 questions that passed were read by no model." in said


def test_a_release_without_documents_says_nothing_of_them(sample_store: Path, sample_release: Path) -> None:
    assert section(sample_store) == ""
    assert "From documents" not in (sample_release / "README.md").read_text()

"""What a release says of its making, and that its run file makes the same store again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.digest import digest_of
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.licences import Origin
from stepsearch_data.release.lineage import run_file
from stepsearch_data.release.record import read_record
from tests import rows
from tests.conftest import Run
from tests.releases import build, release


def test_every_input_and_stage_is_named_by_digest(sample_release: Path) -> None:
    record, store = read_record(sample_release), Store(sample_release / "store")
    lineage, manifest = record.lineage, store.manifest()
    assert record.store == store.digest()
    assert [source["digest"] for source in lineage["sources"]] == list(
        manifest.stages["load"].recipe["inputs"].values()
    )
    assert lineage["corpus"]["sha256"] == digest_of(next(sample_release.glob("store/stages/corpus-*/passages.parquet")))
    assert lineage["stages"].keys() == manifest.stages.keys()
    for name, stage in lineage["stages"].items():
        assert manifest.stages[name].folder == f"stages/{name}-{stage['recipe']}"
        assert stage["outputs"] == {key: output.digest for key, output in manifest.stages[name].outputs.items()}
    assert lineage["engines"]["bm25"]["k1"] == 1.2
    assert (lineage["models"], lineage["prompts"], lineage["files"], lineage["cost"]) == ({}, {}, {}, [])


def test_the_command_and_the_run_file_of_a_release_make_the_same_store_again(
    sample_release: Path, tmp_path: Path, cli: Run
) -> None:
    record = read_record(sample_release)
    assert (sample_release / "run.toml").read_text() == record.run_file
    shutil.copyfile(sample_release / "run.toml", tmp_path / "run.toml")
    _, *arguments = record.command.replace("run.toml", str(tmp_path / "run.toml")).split()
    built = cli(*arguments)
    assert built.returncode == 0, built.stderr
    assert Store(tmp_path / "store").digest() == record.store


def test_a_run_file_keeps_settings_that_are_not_the_defaults_and_engines_of_a_name(tmp_path: Path, cli: Run) -> None:
    file = rows.write_lines(tmp_path / "mine.jsonl", [rows.jsonl("q1")])
    engines = ('engines.use=["soft", "chargram"]', "engines.soft.kind='bm25'", "engines.soft.k1=0.5")
    own = ("filter.rule=1", "filter.valid='gold-or-answer'", "pairs.kinds=['missed']", "quality.seed=7")
    store = build(tmp_path / "store", *engines, *own, sources=[f"jsonl={file}"])
    release(store, tmp_path / "release", licences={"jsonl": "mit"})
    again = tmp_path / "again"
    again.mkdir()
    shutil.copyfile(tmp_path / "release/run.toml", again / "run.toml")
    shutil.copyfile(file, again / "source-1.jsonl")
    built = cli("build", "--config", again / "run.toml")
    assert built.returncode == 0, built.stderr
    assert Store(again / "store").digest() == store.digest()


@pytest.mark.parametrize(
    ("commit", "source"),
    [
        ("hotpotqa/hotpot_qa@abc:distractor/validation", "hotpotqa=hf:hotpotqa/hotpot_qa@abc:distractor/validation"),
        ("me/mine@abc:/train", "hotpotqa=hf:me/mine@abc:train"),
    ],
)
def test_a_dataset_of_the_hub_is_named_at_its_commit(commit: str, source: str, sample_store: Path) -> None:
    origin = Origin("source 1 (hotpotqa)", "hotpotqa", commit, "cc-by-sa-4.0", "official")
    assert f'"{source}",\n' in run_file(Store(sample_store).manifest(), [origin])


def test_no_key_and_no_address_of_a_model_is_in_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    settings: Any = ("llm.base_url='http://models.example:1/v1'", "load.limit=4")
    release(build(tmp_path / "store", *settings), tmp_path / "release")
    for path in (tmp_path / "release").rglob("*"):
        assert path.is_dir() or not any(secret in path.read_bytes() for secret in (b"sk-very", b"models.example"))

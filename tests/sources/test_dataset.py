"""Datasets: what each declares, how rows are told, and those that other packages declare."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.sources import ASKED_ONLY, BUILT, DATASETS
from stepsearch_data.sources.dataset import Dataset, dataset_of, recognise
from stepsearch_data.sources.source import Source, parse_source
from tests.conftest import Run
from tests.plugins import install
from tests.rows import jsonl, write_lines

PLUGIN = """
from stepsearch_data.sources import jsonl
from stepsearch_data.sources.dataset import Dataset, Publication


def parse(record):
    question, paragraphs = jsonl.parse(record)
    return question and question.model_copy(update={"source": "trivia"}), paragraphs


DECLARED = Dataset(
    name="trivia",
    doc="questions of a quiz",
    parse=parse,
    signatures=(frozenset({"question", "paragraphs", "round"}),),
    score=lambda prediction, golds: (0.25, 0.75),
    publication=Publication("Trivia by Ada", "cc-by-4.0", "@misc{trivia}", "extended|other-trivia"),
    data_source="nq",
    released_as="musi",
)
"""


@pytest.mark.parametrize("name", DATASETS.ours)
def test_every_dataset_says_what_it_is(name: str) -> None:
    dataset = dataset_of(name)
    assert (dataset.name, bool(dataset.doc)) == (name, True)
    assert (dataset.parse is None) == (name in ASKED_ONLY)
    assert bool(dataset.signatures) == (name in BUILT)
    assert dataset.score("Pesaro", ["Pesaro", "Pisaurum"]) == (1, 1)
    assert not dataset.sample or parse_source(f"{name}=sample").path.is_file()


def test_rows_of_a_package_that_is_not_here_are_plain() -> None:
    assert dataset_of("elsewhere") == Dataset("elsewhere", "")


def test_rows_with_more_fields_than_another_dataset_has_are_told_by_them() -> None:
    assert recognise({"supporting_facts", "context", "evidences"}) == ["2wiki"]
    assert recognise({"question", "paragraphs", "supporting_facts", "context"}) == ["hotpotqa", "jsonl"]


def test_another_version_of_a_reader_is_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    source = Source("jsonl", str(tmp_path / "rows.jsonl"))
    before = source.digest()
    monkeypatch.setattr(Source, "dataset", Dataset("jsonl", "", version=2))
    assert source.digest() == f"{before} version 2"


@pytest.mark.long
def test_a_package_adds_a_dataset_by_an_entry_point(tmp_path: Path, cli: Run) -> None:
    """A real distribution on the path: built from, judged, exported and released as it declares."""
    environment = install(tmp_path, "stepsearch_data.datasets", "trivia", PLUGIN)
    rows = write_lines(tmp_path / "rows.jsonl", [jsonl("t1") | {"round": 1}])
    store, output = tmp_path / "store", tmp_path / "out"
    built = cli("build", "--store", store, "--source", f"trivia={rows}", "--quiet", env=environment)
    assert built.returncode == 0, built.stderr
    for flags in (("export", "--format", "search-r1"), ("publish", "team/data", "--dry-run")):
        done = cli(*flags, "--store", store, "--output", output / flags[0], "--quiet", env=environment)
        assert done.returncode == 0, done.stderr
    assert pl.read_parquet(output / "export" / "train.parquet")["data_source"].to_list() == ["nq"]
    card = (output / "publish" / "README.md").read_text()
    assert all(text in card for text in ("Trivia by Ada", "@misc{trivia}", "extended|other-trivia", "cc-by-4.0"))
    wrong = cli("build", "--store", store, "--source", f"jsonl={rows}", "--source", f"musique={rows}", env=environment)
    assert (wrong.returncode, "in the format of jsonl" in wrong.stderr) == (1, True)
    assert cli("init", tmp_path / "run.toml", env=environment).returncode == 0
    assert "trivia: questions of a quiz" in (tmp_path / "run.toml").read_text()


@pytest.mark.long
def test_a_dataset_of_a_broken_package_is_named_where_it_is_asked_for(tmp_path: Path, cli: Run) -> None:
    environment = install(tmp_path, "stepsearch_data.datasets", "trivia", "import surely_not_there")
    rows = write_lines(tmp_path / "rows.jsonl", [jsonl("t1")])
    refused = cli("build", "--store", tmp_path / "store", "--source", f"trivia={rows}", env=environment)
    assert refused.returncode == ConfigError.exit_code
    assert "the dataset trivia of the package trivia-plugin cannot be loaded" in refused.stderr
    assert "Traceback" not in refused.stderr
    built = cli("build", "--store", tmp_path / "store", "--source", f"jsonl={rows}", "--quiet", env=environment)
    assert built.returncode == 0, built.stderr

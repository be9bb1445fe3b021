"""Partial builds: what is out of date is never read, voted on or measured."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from tests.conftest import Run

SIX = ("--set", "queries.per_sub_question=6")


@pytest.fixture
def store(sample_store: Path, tmp_path: Path) -> Path:
    """A copy of the sample store whose queries are newer than its hits."""
    copy = tmp_path / "store"
    shutil.copytree(sample_store, copy)
    return copy


def test_a_stage_refuses_stale_inputs(store: Path, cli: Run) -> None:
    assert cli("build", "--store", store, *SIX, "--stage", "queries").returncode == 0
    for verb in ("build", "explain"):
        refused = cli(verb, "--store", store, *SIX, "--stage", "filter")
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-2:] == [
            "error: filter reads hits, which is out of date",
            "hint: build it first: stepsearch-data build --from retrieve --to filter",
        ]
    assert cli("build", "--store", store, *SIX, "--from", "retrieve").returncode == 0
    assert cli("build", "--store", store, *SIX).stdout


def test_audit_refuses_a_stale_store_and_status_shows_it(store: Path, cli: Run) -> None:
    cli("build", "--store", store, *SIX, "--to", "queries")
    audited = cli("audit", "--store", store)
    assert audited.returncode == 1
    assert "retrieve, trajectories" in audited.stderr
    assert cli("status", "--store", store).stdout.count("stale") == 5


def test_what_a_file_of_the_users_holds_decides_whether_its_stage_runs(store: Path, tmp_path: Path, cli: Run) -> None:
    rollouts = tmp_path / "rollouts.jsonl"
    rollouts.write_text('{"id": "q1", "score": 1}\n')
    settings = ("--store", store, "--set", f"quality.rollouts={rollouts}")
    assert cli("build", "--quiet", *settings).returncode == 0
    assert "runs" not in cli("explain", *settings).stdout
    rollouts.write_text('{"id": "q1", "score": 0}\n')
    lines = [line.split() for line in cli("explain", *settings).stdout.splitlines() if "runs" in line]
    assert [line[:3] for line in lines] == [["quality", "runs", "files.rollouts"]]
    rollouts.unlink()
    refused = cli("explain", *settings)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: cannot read {rollouts}: ")


def test_the_catalogue_follows_every_commit(store: Path, cli: Run) -> None:
    cli("build", "--store", store, *SIX, "--to", "queries")
    views = (store / "catalog.sql").read_text()
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{store}'")
        connection.execute(views)
        assert connection.execute("SELECT count(*) FROM queries").fetchone() != (0,)


@pytest.mark.long
def test_a_limited_sample_grows_back(store: Path, cli: Run) -> None:
    assert cli("build", "--store", store, "--limit", "5", "--quiet").returncode == 0
    assert cli("build", "--store", store, "--fresh", "--quiet").returncode == 0
    found = cli("sql", "SELECT count(*) AS n FROM questions", "--store", store, "-f", "csv")
    assert found.stdout.split() == ['"n"', "74"]
    assert cli("build", "--store", store, "--force", "--quiet").returncode == 0


def test_a_damaged_table_is_named_with_its_remedy(store: Path, cli: Run) -> None:
    (table,) = store.glob("stages/queries-*/queries.parquet")
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    assert "queries is missing from the store, or cut" in cli("explain", "--store", store).stdout
    table.write_bytes(whole[:200] + bytes(len(whole) - 400) + whole[-200:])
    broken = cli("build", "--store", store, "--stage", "retrieve", "--force")
    error, hint = broken.stderr.splitlines()[-2:]
    assert error.startswith(f"error: {table} is damaged: ")
    assert hint == "hint: build it again: --force --stage queries"
    assert cli("build", "--store", store, "--stage", "queries", "--force").returncode == 0
    assert cli("build", "--store", store).returncode == 0


def test_a_build_that_dies_leaves_a_catalogue_that_works(store: Path, cli: Run) -> None:
    result: subprocess.CompletedProcess[str] = cli("build", "--store", store, *SIX, "--set", "filter.k=0")
    assert result.returncode == 2
    assert cli("sql", "SELECT count(*) FROM trajectories", "--store", store).returncode == 0

"""The views of a store, and a SQL that can read them and do nothing else."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stepsearch_data.core.errors import QueryError, StoreError
from stepsearch_data.pipeline import catalog
from stepsearch_data.pipeline.store import Store
from stepsearch_data.sql import query
from tests.conftest import Run

VIEWS = ("questions", "sub_questions", "queries", "hits", "passages", "trajectories", "rounds", "rejects")


def ask(store: Path, sql: str) -> list[dict[str, Any]]:
    with query(Store.open(store), sql) as reader:
        return reader.read_all().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types


def rows(store: Path, view: str) -> list[dict[str, Any]]:
    return ask(store, f"SELECT * FROM {view} ORDER BY ALL")


def test_an_error_in_a_late_row_is_a_query_error(sample_store: Path) -> None:
    late = "SELECT (CASE range WHEN 999999 THEN 'x' ELSE '1' END)::INT FROM range(1000000)"
    with pytest.raises(QueryError, match="Could not convert string 'x'"):
        ask(sample_store, late)


def test_columns_of_one_name_are_told_apart(sample_store: Path) -> None:
    assert ask(sample_store, "SELECT 1 AS a, 2 AS a, 3 AS a_1") == [{"a": 1, "a_1": 2, "a_1_1": 3}]


def test_mistakes_come_with_advice(sample_store: Path) -> None:
    for sql in ("SELECT * FROM nothing", "SELECT nothing FROM questions"):
        with pytest.raises(QueryError) as caught:
            ask(sample_store, sql)
        assert "stepsearch-data schema" in caught.value.hint


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_there(view: str, sample_store: Path) -> None:
    assert bool(rows(sample_store, view)) == (view != "rejects")


def test_columns_that_others_rely_on(sample_store: Path) -> None:
    wanted = {
        "trajectories": "question_id, source, question, answer, answer_aliases, hops, rollout",
        "rounds": "question_id, round, sub_question, sub_answer, query",
        "queries": "query_id, question_id, hop, query, kept, engines, valid_engines, gold_rank",
    }
    for view, columns in wanted.items():
        assert ask(sample_store, f"SELECT {columns} FROM {view} LIMIT 1")


def test_queries_show_the_verdict_of_the_vote(sample_store: Path) -> None:
    assert ask(sample_store, "SELECT query_id, kept FROM queries ORDER BY 1") == ask(
        sample_store, "SELECT query_id, kept FROM votes ORDER BY 1"
    )


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory, sample_store: Path) -> Path:
    """A store built up to `queries`."""
    from tests.conftest import run_cli

    store = tmp_path_factory.mktemp("unfinished") / "my store"
    assert run_cli("build", "--quiet", "--store", store, "--to", "queries").returncode == 0
    return store


def test_before_the_vote_verdicts_are_null(unfinished: Path) -> None:
    counted = ask(unfinished, "SELECT count(*) AS n, count(kept) AS k, count(gold_rank) AS g FROM queries")
    assert counted[0]["n"] > 0
    assert (counted[0]["k"], counted[0]["g"]) == (0, 0)
    types = {row["column_name"]: row["column_type"] for row in ask(unfinished, "DESCRIBE queries")}
    assert (types["kept"], types["gold_rank"]) == ("BOOLEAN", "BIGINT")


def test_a_view_that_is_not_built_yet_says_how_to_get_it(unfinished: Path) -> None:
    with pytest.raises(QueryError) as caught:
        ask(unfinished, "SELECT * FROM hits")
    assert caught.value.hint == f"hits is not built yet: stepsearch-data build --store {shlex.quote(str(unfinished))}"
    with pytest.raises(QueryError) as caught:
        ask(unfinished, "SELECT * FROM rollouts")
    assert caught.value.hint == "play some: stepsearch-data rollouts --help"


def test_verdicts_on_earlier_queries_are_not_shown(unfinished: Path, tmp_path: Path, cli: Run) -> None:
    store = tmp_path / "store"
    shutil.copytree(unfinished, store)
    assert cli("build", "--quiet", "--store", store).returncode == 0
    assert catalog.stale(Store.open(store)) == []
    sources = ("-s", "musique=sample", "-s", "hotpotqa=sample")
    assert cli("build", "--quiet", "--store", store, *sources, "--limit", "3", "--to", "queries").returncode == 0
    assert "filter" in catalog.stale(Store.open(store))
    assert ask(store, "SELECT count(kept) AS k FROM queries") == [{"k": 0}]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rows of a view as any DuckDB sees them after reading catalog.sql."""

    def read(store: Path, view: str) -> list[dict[str, Any]]:
        monkeypatch.chdir(store)
        with duckdb.connect() as connection:
            connection.execute((store / "catalog.sql").read_text())
            return connection.sql(f"SELECT * FROM {view} ORDER BY ALL").to_arrow_table().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types

    return read


@pytest.mark.parametrize("view", VIEWS)
def test_any_duckdb_sees_the_same_rows(view: str, sample_store: Path, plain: Any) -> None:
    assert plain(sample_store, view) == rows(sample_store, view)


@pytest.mark.parametrize("name", ["moved", "it's", "a [1] * ?", "ümlaut; --"])
def test_a_store_may_be_moved(name: str, sample_store: Path, tmp_path: Path, plain: Any) -> None:
    before = rows(sample_store, "rounds")
    shutil.copytree(sample_store, tmp_path / "first")
    moved = (tmp_path / "first").rename(tmp_path / name)
    assert rows(moved, "rounds") == before
    assert plain(moved, "rounds") == before


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_a_damaged_table_is_one_clear_error(damage: str, sample_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(sample_store, store)
    (path,) = store.glob("stages/*/passages.parquet")
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        StoreError, match=rf"passages\.parquet is {'missing' if damage == 'missing' else 'damaged'}"
    ) as caught:
        ask(store, "SELECT 1")
    assert "\n" not in caught.value.message
    assert "build" in caught.value.hint


@pytest.mark.long
def test_readers_see_whole_builds_while_others_replace_them(sample_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(sample_store, store)
    command = [sys.executable, "-m", "stepsearch_data", "build", "-q", "--store", str(store), "--limit", "2"]
    sources = ["-s", "musique=sample", "-s", "hotpotqa=sample"]
    with query(Store.open(store), "SELECT count(*) AS n FROM rounds, range(2)") as first:
        seen = []
        with subprocess.Popen([*command, *sources], stderr=subprocess.PIPE) as build:
            while build.poll() is None:
                ask(store, "SELECT count(*) FROM queries JOIN hits USING (query_id)")
                seen.append(ask(store, "SELECT count(*) AS n FROM rounds")[0]["n"])
        assert build.returncode == 0
        assert first.read_all().to_pylist()[0]["n"] == 2 * seen[0]
    assert seen[0] > ask(store, "SELECT count(*) AS n FROM rounds")[0]["n"] > 0

"""SQL reads a store's tables and does nothing else, whoever wrote the SQL and whoever made the store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stepsearch_data.core.errors import QueryError, StoreError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.sql import query
from tests import escapes
from tests.tree import tree


def ask(store: Path, sql: str) -> list[dict[str, Any]]:
    with query(Store.open(store), sql) as reader:
        return reader.read_all().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types


@pytest.fixture(scope="module")
def bench(sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    escapes.bench(sample_store, folder)
    return folder


@pytest.mark.long
def test_nothing_but_the_tables_is_read_and_nothing_is_written(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_python_variable = duckdb.sql("SELECT 1")
    monkeypatch.setenv("STEPSEARCH_TEST_SECRET", escapes.SECRET)
    monkeypatch.setenv("HOME", str(bench / "home"))
    monkeypatch.chdir(bench)
    before = tree(bench)
    tried = escapes.escapes(bench)
    for sql in tried:
        with pytest.raises(QueryError) as caught:
            pytest.fail(f"{sql!r} gave {ask(bench / 'store', sql)}")
        assert escapes.SECRET not in caught.value.message
        assert "Traceback" not in caught.value.message
        assert tree(bench) == before, sql
    assert len(set(tried)) > 210
    assert a_python_variable is not None


def test_no_secret_of_the_user_is_known(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with duckdb.connect() as connection:
        connection.execute("CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')")
        assert connection.sql("SELECT name FROM duckdb_secrets()").fetchall() == [("s",)]
    for sql in ("FROM duckdb_secrets()", "FROM which_secret('http://127.0.0.1/x', 'http')"):
        assert ask(bench / "store", sql) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM questions",
        "select 1;",
        "  \n-- a comment\nSELECT 1 -- another",
        "WITH x AS (SELECT 1) FROM x",
        "FROM questions LIMIT 1",
        "VALUES (1)",
        "DESCRIBE questions",
        "SHOW TABLES",
        "SUMMARIZE rejects",
        "EXPLAIN SELECT 1",
        "explain analyze select 1",
        "EXPLAIN (FORMAT json) SELECT 1",
        "EXPLAIN (ANALYZE, FORMAT json) SELECT 1",
        "EXPLAIN (SELECT 1)",
        "SELECT * FROM query('SELECT 1')",
        "PIVOT rounds ON hop USING count(*) GROUP BY question_id",
        "PIVOT_WIDER rounds ON hop USING count(*);\n",
        "WITH p AS (PIVOT queries ON method USING count(*) GROUP BY hop) SELECT * FROM p",
        "DESCRIBE PIVOT rounds ON hop USING count(*)",
        "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b",
        "SELECT file_name FROM parquet_metadata('store://trajectories-0')",
    ],
)
def test_reading_the_tables_is_admitted(sql: str, bench: Path) -> None:
    assert ask(bench / "store", sql)


@pytest.mark.parametrize(
    ("how", "words"), [("path", "is not where questions lies"), ("link", "lies outside of the store")]
)
def test_a_store_cannot_lead_outside(how: str, words: str, bench: Path, tmp_path: Path) -> None:
    """A store may come from a stranger."""
    store = tmp_path / "store"
    shutil.copytree(bench / "store", store, symlinks=True)
    secret = shutil.copy(bench / "secret.parquet", tmp_path / "secret.parquet")
    output = Store.open(store).manifest().output("questions")
    assert output is not None
    if how == "path":
        manifest = store / "manifest.json"
        manifest.write_text(manifest.read_text().replace(output.path, "../secret.parquet"))
    else:
        (store / output.path).unlink()
        (store / output.path).symlink_to(secret)
    with pytest.raises(StoreError, match=words):
        ask(store, "SELECT * FROM questions")

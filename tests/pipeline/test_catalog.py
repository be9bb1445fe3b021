"""The views of a store, and a SQL that can read them and do nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stepsearch_data.pipeline import catalog
from stepsearch_data.pipeline.errors import QueryError, StoreError
from stepsearch_data.pipeline.store import Store
from tests.conftest import Run
from tests.tree import tree

VIEWS = ("questions", "sub_questions", "queries", "hits", "passages", "trajectories", "rounds", "rejects")
SECRET = "the secret outside"


def ask(store: Path, sql: str, timeout: float = 20) -> list[dict[str, Any]]:
    with catalog.query(Store.open(store), sql, timeout) as reader:
        return reader.read_all().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types


def rows(store: Path, view: str) -> list[dict[str, Any]]:
    return ask(store, f"SELECT * FROM {view} ORDER BY ALL")


@pytest.fixture(scope="module")
def bench(sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a secret beside it, and links from the store to the secret."""
    folder = tmp_path_factory.mktemp("bench")
    shutil.copytree(sample_store, folder / "store")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "other").mkdir()
    (folder / "other" / "secret.csv").write_text(f"a\n{SECRET}\n")
    duckdb.connect().execute(f"COPY (SELECT '{SECRET}' AS a) TO '{folder / 'secret.parquet'}'")
    (folder / "store" / "link.txt").symlink_to(folder / "secret.txt")
    (folder / "store" / "link").symlink_to(folder / "other")
    return folder


READS = """
SELECT * FROM read_text('BENCH/secret.txt')
SELECT * FROM read_text('STORE/../secret.txt')
SELECT * FROM read_text('STORE/stages/../../secret.txt')
SELECT * FROM read_text('secret.txt')
SELECT * FROM read_text('../secret.txt')
SELECT * FROM read_text('STORE/link.txt')
SELECT * FROM read_text('STORE/link/secret.csv')
SELECT * FROM read_csv('STORE/link/*.csv')
SELECT * FROM glob('BENCH/*')
SELECT * FROM glob('STORE/../*')
SELECT * FROM glob('STORE/link/*')
SELECT * FROM read_blob('BENCH/secret.txt')
SELECT * FROM read_csv('BENCH/other/secret.csv')
SELECT * FROM read_json('BENCH/secret.txt')
SELECT * FROM read_parquet('BENCH/secret.parquet')
SELECT * FROM parquet_metadata('BENCH/secret.parquet')
SELECT * FROM parquet_schema('BENCH/secret.parquet')
SELECT * FROM sniff_csv('BENCH/other/secret.csv')
SELECT * FROM read_text('STORE/manifest.json')
SELECT * FROM read_parquet('STORE/stages/*/questions.parquet')
SELECT * FROM 'BENCH/secret.parquet'
SELECT * FROM "BENCH/other/secret.csv"
SELECT * FROM 'file:BENCH/secret.parquet'
SELECT * FROM 'file://BENCH/secret.parquet'
SELECT * FROM query_table('BENCH/secret.parquet')
SELECT * FROM query('FROM read_text(''BENCH/secret.txt'')')
WITH x AS (FROM read_text('BENCH/secret.txt')) SELECT * FROM x
SELECT (SELECT content FROM read_text('BENCH/secret.txt'))
EXPLAIN ANALYZE SELECT * FROM read_text('BENCH/secret.txt')
DESCRIBE FROM 'BENCH/secret.parquet'
SUMMARIZE FROM 'BENCH/secret.parquet'
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''BENCH/secret.txt'')'))
SELECT * FROM read_duckdb('BENCH/secret.db')
SELECT * FROM read_csv('/dev/stdin')
SELECT * FROM read_text('/proc/self/environ')
SELECT * FROM read_csv('http://127.0.0.1:9/secret.csv')
SELECT * FROM read_parquet('https://example.com/secret.parquet')
SELECT * FROM 's3://bucket/secret.parquet'
SELECT * FROM read_text('hf://datasets/a/b/secret.txt')
SELECT getenv('STEPSEARCH_TEST_SECRET')
SELECT * FROM duckdb_secrets()
SELECT * FROM which_secret('s3://bucket/x', 's3')
SELECT * FROM a_python_variable
SELECT * FROM SECRET
SELECT * FROM python_map_function('a')
SELECT * FROM pandas_scan(1)
SELECT * FROM arrow_scan(1, 2, 3)
"""
# What would write, change settings, or run more than one thing; some hide it from a reader of prefixes.
ACTS = """
COPY questions TO 'STORE/stolen.parquet'
COPY (SELECT 1) TO 'STORE/manifest.json'
COPY (SELECT 1) TO 'BENCH/stolen.csv'
COPY (SELECT 1) TO 'stolen.csv'
copy(select 1)to'STORE/stolen.csv'
COPY questions FROM 'BENCH/secret.parquet'
EXPORT DATABASE 'STORE/stolen'
IMPORT DATABASE 'STORE/stolen'
EXPLAIN COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
eXpLaIn AnAlYzE cOpY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN\nANALYZE\n\tCOPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE\u00a0COPY (SELECT 1) TO 'STORE/stolen.csv'
/* c */ EXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
-- c\nEXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN /* c */ ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN/**/ANALYZE/**/COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE /* SELECT 1 */ COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE -- SELECT 1\nCOPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE (FORMAT json) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE /*)SELECT 1 --*/) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE --)SELECT 1 --\n) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE, FORMAT ')SELECT 1 --') COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE, ")SELECT 1 --") COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE true) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN EXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
SELECT 1; COPY (SELECT 1) TO 'STORE/stolen.csv'
COPY (SELECT 1) TO 'STORE/stolen.csv'; SELECT 1
EXPLAIN SELECT 1; COPY (SELECT 1) TO 'STORE/stolen.csv'
SELECT 1; SELECT 2
SELECT * FROM query('COPY (SELECT 1) TO ''STORE/stolen.csv''')
WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') SELECT * FROM x
WITH x AS (COPY (SELECT 1) TO 'STORE/manifest.json') SELECT * FROM x
SELECT * FROM (WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') SELECT * FROM x)
SELECT (WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') SELECT count(*) FROM x)
EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') SELECT * FROM x
SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''STORE/stolen.csv'') SELECT * FROM x')
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1) TO ''STORE/a.csv'') FROM x'))
WITH x AS (INSERT INTO questions VALUES (1) RETURNING *) SELECT * FROM x
WITH x AS (DELETE FROM questions RETURNING *) SELECT * FROM x
WITH x AS (UPDATE questions SET hops = 1 RETURNING *) SELECT * FROM x
INSERT INTO questions VALUES (1)
UPDATE questions SET hops = 1
DELETE FROM questions
MERGE INTO questions USING hits ON true WHEN MATCHED THEN DELETE
TRUNCATE questions
CREATE TABLE t AS SELECT 1
CREATE TEMP TABLE t AS SELECT 1
CREATE OR REPLACE VIEW questions AS SELECT 1
CREATE MACRO m() AS 1
CREATE SECRET s (TYPE s3)
CREATE TYPE t AS ENUM ('a')
DROP VIEW questions
ALTER VIEW questions RENAME TO q
COMMENT ON VIEW questions IS 'x'
ATTACH 'BENCH/new.db' AS db
ATTACH 'STORE/new.db'
ATTACH ':memory:' AS db
ATTACH 'http://127.0.0.1:9/x.db' AS db
DETACH memory
USE memory
INSTALL httpfs
INSTALL httpfs FROM community
LOAD httpfs
LOAD 'BENCH/evil.duckdb_extension'
UPDATE EXTENSIONS
SET enable_external_access = true
SET GLOBAL threads = 1
SET allowed_directories = ['/']
SET VARIABLE x = 1
RESET ALL
RESET threads
PRAGMA threads = 1
PRAGMA enable_profiling
PRAGMA database_list
CALL pragma_version()
CALL enable_logging(storage = 'file', storage_path = 'STORE/stolen')
SELECT * FROM enable_logging('QueryLog', storage = 'file', storage_path = 'STORE/stolen')
SELECT * FROM enable_profiling()
PREPARE p AS SELECT 1
EXECUTE p
DEALLOCATE p
BEGIN
COMMIT
CHECKPOINT
VACUUM
ANALYZE
SELECT ?
SELECT $name

;
-- nothing
SELECT
SELEKT 1
SELECT 'never closed
SELECT \udcff
"""


def lines(block: str) -> list[str]:
    return [line.replace("\\n", "\n").replace("\\t", "\t") for line in block.strip().split("\n")]


@pytest.mark.parametrize("sql", [*lines(READS), *lines(ACTS)])
def test_nothing_but_the_tables_is_read_and_nothing_is_written(
    sql: str, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_python_variable = duckdb.sql("SELECT 1")
    monkeypatch.setenv("STEPSEARCH_TEST_SECRET", SECRET)
    monkeypatch.setenv("HOME", str(bench / "home"))
    monkeypatch.chdir(bench)
    before = tree(bench)
    with pytest.raises(QueryError) as caught:
        ask(bench / "store", sql.replace("STORE", str(bench / "store")).replace("BENCH", str(bench)))
    assert SECRET not in caught.value.message
    assert tree(bench) == before
    assert a_python_variable is not None


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


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(10000000000) a, range(10000000000) b",
        "SELECT * FROM range(100000000000000)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
        "EXPLAIN ANALYZE SELECT count(*) FROM range(10000000000) a, range(10000000000) b",
    ],
)
def test_an_endless_query_is_stopped_promptly(sql: str, sample_store: Path) -> None:
    begin = time.monotonic()
    with (
        pytest.raises(QueryError, match=r"the query took longer than 0\.3 s") as caught,
        catalog.query(Store.open(sample_store), sql, 0.3) as reader,
    ):
        for _ in reader:
            pass
    assert time.monotonic() - begin < 5
    assert "--timeout" in caught.value.hint


def test_a_quick_query_leaves_no_timer_behind(sample_store: Path) -> None:
    ask(sample_store, "SELECT 1", timeout=3600)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


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

    store = tmp_path_factory.mktemp("unfinished") / "store"
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
    assert "hits is not built yet: stepsearch-data build" in caught.value.hint


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


def test_readers_see_whole_builds_while_others_replace_them(sample_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(sample_store, store)
    command = [sys.executable, "-m", "stepsearch_data", "build", "-q", "--store", str(store), "--limit", "2"]
    sources = ["-s", "musique=sample", "-s", "hotpotqa=sample"]
    with catalog.query(Store.open(store), "SELECT count(*) AS n FROM rounds, range(2)", 60) as first:
        seen = []
        with subprocess.Popen([*command, *sources], stderr=subprocess.PIPE) as build:
            while build.poll() is None:
                ask(store, "SELECT count(*) FROM queries JOIN hits USING (query_id)")
                seen.append(ask(store, "SELECT count(*) AS n FROM rounds")[0]["n"])
        assert build.returncode == 0
        assert first.read_all().to_pylist()[0]["n"] == 2 * seen[0]
    assert seen[0] > ask(store, "SELECT count(*) AS n FROM rounds")[0]["n"] > 0

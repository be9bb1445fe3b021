"""SQL over a store: DuckDB views of what is committed, and a locked-down way to query them."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from stepsearch_data.pipeline.errors import QueryError, StoreError
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import QUERIES, REJECTS, TABLES, VOTES

_OPTION = r"(?:ANALYZE|FORMAT\s+\w+)"
_EXPLAIN = re.compile(rf"\s*EXPLAIN\s+(ANALYZE\s+)?(\(\s*{_OPTION}(\s*,\s*{_OPTION})*\s*\)\s*)?", re.IGNORECASE)
"""Nothing that could hold a comment or a quote, inside of which DuckDB would read on where we do not."""

VERDICT = ("kept", "engines", "valid_engines", "gold_rank")
"""Columns of `votes` that the view `queries` shows too."""

_HEADER = "-- Views over this store, for any DuckDB: cd STORE && duckdb -init catalog.sql\n"


def view_definitions(manifest: Manifest, folder: str = "") -> dict[str, str]:
    """The SELECT behind each view, by name; paths start with `folder` (with its slash)."""
    views = {}
    for table in TABLES:
        output = manifest.output(table.name)
        if table is not REJECTS and output:
            views[table.name] = _scan([f"{folder}{output.path}"])
    if manifest.stages:
        views[REJECTS.name] = _scan([f"{folder}{e.outputs[REJECTS.name].path}" for e in manifest.stages.values()])
    if QUERIES.name in views:
        views[QUERIES.name] = _with_verdict(views[QUERIES.name], views.get(VOTES.name), manifest)
    return views


def _with_verdict(queries: str, votes: str | None, manifest: Manifest) -> str:
    """Queries and what was voted on them; nulls before the vote, or while it is about earlier queries."""
    if votes is None or not manifest.is_fresh(manifest.writer(VOTES.name)):
        types = {field.name: "BOOLEAN" if field.type == pa.bool_() else "BIGINT" for field in VOTES.schema}
        nulls = ", ".join(f"NULL::{types[column]} AS {column}" for column in VERDICT)
        return f"SELECT *, {nulls} FROM ({queries})"
    verdict = ", ".join(f"v.{column}" for column in VERDICT)
    return f"SELECT q.*, {verdict} FROM ({queries}) q LEFT JOIN ({votes}) v USING (query_id)"


def _scan(paths: list[str]) -> str:
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"SELECT * FROM read_parquet([{listed}])"


def write_catalog(store: Store) -> None:
    """Write `catalog.sql`: the views with paths relative to the store, so that it may be moved."""
    statements = [
        f"CREATE OR REPLACE VIEW {name} AS {select};" for name, select in view_definitions(store.manifest()).items()
    ]
    store.write_text("catalog.sql", _HEADER + "\n".join(statements) + "\n")


def connect(store: Store, manifest: Manifest) -> duckdb.DuckDBPyConnection:
    """A DuckDB with the store's views that reaches no file outside the store. Raises StoreError.

    COPY could still write into the store: `query` admits none.
    """
    connection = duckdb.connect(":memory:")
    root = store.root.resolve()
    try:
        for name, select in view_definitions(manifest, f"{root}/").items():
            connection.execute(f"CREATE VIEW {name} AS {select}")
    except duckdb.Error as error:
        connection.close()
        raise StoreError(
            f"a table of {store.root} cannot be read: {str(error).splitlines()[0]}",
            "stepsearch-data build makes missing tables anew, and broken ones with --force",
        ) from error
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET allowed_directories = [?]", [str(root)])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def query(store: Store, sql: str, timeout: float) -> Iterator[pa.RecordBatchReader]:
    """Run one SELECT (or EXPLAIN of one) and stream its rows.

    `timeout` is in seconds and covers the reading of the rows. Raises QueryError, also while they are read.
    """
    _admit(sql)
    with store.reading() as manifest, connect(store, manifest) as connection:
        expired = threading.Event()

        def interrupt() -> None:
            expired.set()
            connection.interrupt()

        def explained(error: Exception) -> QueryError:
            if expired.is_set():
                return QueryError(f"the query took longer than {timeout:g} s", "give it more: --timeout SECONDS")
            return QueryError(str(error).strip(), _advice(store, str(error)))

        def batches(reader: pa.RecordBatchReader, names: list[str]) -> Iterator[pa.RecordBatch]:
            try:
                for batch in reader:
                    yield batch.rename_columns(names)
            except (pa.ArrowException, OSError) as error:  # DuckDB's own errors arrive as an OSError here
                raise explained(error) from error

        timer = threading.Timer(timeout, interrupt)
        timer.daemon = True
        timer.start()
        try:
            reader = connection.sql(sql).to_arrow_reader()
            schema = _distinct(reader.schema)
            yield pa.RecordBatchReader.from_batches(schema, batches(reader, schema.names))
        except duckdb.Error as error:
            raise explained(error) from error
        finally:
            timer.cancel()


def _distinct(schema: pa.Schema) -> pa.Schema:
    """The schema with names that occur once, as JSON and data frames need: a, a_1, a_2."""
    taken: set[str] = set()
    fields = []
    for field in schema:
        tries = (f"{field.name}_{number}" if number else field.name for number in itertools.count())
        name = next(name for name in tries if name not in taken)
        taken.add(name)
        fields.append(field.with_name(name))
    return pa.schema(fields)


def _admit(sql: str) -> None:
    """Refuse what is not one statement that can only read. DuckDB itself tells what kind it is."""
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise QueryError("the query is not valid UTF-8") from None
    match = _EXPLAIN.match(sql)
    inner = sql[match.end() :] if match else sql  # EXPLAIN ANALYZE runs what it explains
    try:
        statements = duckdb.extract_statements(inner)
    except duckdb.Error as error:
        raise QueryError(str(error).strip()) from error
    if len(statements) != 1:
        raise QueryError(f"expected one statement, got {len(statements)}")
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = str(statements[0].type).rpartition(".")[2]
        raise QueryError(
            f"only SELECT (or EXPLAIN of one) is admitted, not {kind}", "write files with --output instead of COPY"
        )


def _advice(store: Store, message: str) -> str:
    """What to do about a view that is not there."""
    match = re.search(r"Table with name (\w+) does not exist", message)
    names = {table.name for table in TABLES}
    if match and match[1] in names and store.manifest().output(match[1]) is None:
        return f"{match[1]} is not built yet: stepsearch-data build --store {store.root}"
    return "stepsearch-data schema lists tables and columns" if match or "Referenced column" in message else ""


def stale(store: Store) -> list[str]:
    """Committed stages whose rows were made from other inputs than those committed now."""
    manifest = store.manifest()
    return [name for name in manifest.stages if not manifest.is_fresh(name)]

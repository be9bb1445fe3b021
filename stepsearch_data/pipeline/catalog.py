"""SQL over a store: DuckDB views of what is committed, and a locked-down way to query them.

DuckDB and Arrow's datasets are imported where they are used: a build only writes the catalog.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from stepsearch_data.pipeline.errors import QueryError, StoreError
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import (
    BALLOTS,
    HITS,
    LLM_CALLS,
    QUERIES,
    REJECTS,
    SEARCH_CALLS,
    TABLES,
    VOTES,
    Table,
)

if TYPE_CHECKING:
    import duckdb

_OPTION = r"(?:ANALYZE|FORMAT\s+\w+)"
_EXPLAIN = re.compile(rf"\s*EXPLAIN\s+(ANALYZE\s+)?(\(\s*{_OPTION}(\s*,\s*{_OPTION})*\s*\)\s*)?", re.IGNORECASE)
"""Nothing that could hold a comment or a quote, inside of which DuckDB would read on where we do not."""


@dataclass(frozen=True)
class Judged:
    """A table whose view shows what another one says about its rows."""

    by: Table
    columns: tuple[str, ...]
    key: tuple[str, ...]


JUDGED = {
    QUERIES.name: Judged(VOTES, ("kept", "waiting", "engines", "valid_engines", "gold_rank"), ("query_id",)),
    HITS.name: Judged(BALLOTS, ("valid",), ("query_id", "engine")),
}
LOGS = (LLM_CALLS, SEARCH_CALLS)
"""Tables that are read from the logs of those names."""

_SQL_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}
_HEADER = "-- Views over this store, for any DuckDB: cd STORE && duckdb -init catalog.sql\n"


def view_definitions(
    manifest: Manifest, scan: Callable[[str, list[str]], str], logs: Mapping[str, str]
) -> dict[str, str]:
    """The SELECT behind each view, by name; `scan` makes that of a table from its name and its files.

    `logs` are the paths of the logs that there are; the view of a log that is missing is empty.
    """
    views = {log.name: _log(log, logs.get(log.name)) for log in LOGS}
    for table in TABLES:
        output = manifest.output(table.name)
        if table not in (REJECTS, *LOGS) and output:
            views[table.name] = scan(table.name, [output.path])
    if manifest.stages:
        views[REJECTS.name] = scan(REJECTS.name, [e.outputs[REJECTS.name].path for e in manifest.stages.values()])
    judged = {name: _judged(views, name, judged, manifest) for name, judged in JUDGED.items() if name in views}
    return {**views, **judged}


def _judged(views: Mapping[str, str], name: str, judged: Judged, manifest: Manifest) -> str:
    """Rows and what was said about them; nulls before that, or while it is about earlier rows."""
    by = judged.by
    if by.name not in views or not manifest.is_fresh(manifest.writer(by.name)):
        types = {field.name: _SQL_TYPES[field.type] for field in by.schema}
        nulls = ", ".join(f"NULL::{types[column]} AS {column}" for column in judged.columns)
        return f"SELECT *, {nulls} FROM ({views[name]})"
    said = ", ".join(f"j.{column}" for column in judged.columns)
    return f"SELECT r.*, {said} FROM ({views[name]}) r LEFT JOIN ({views[by.name]}) j USING ({', '.join(judged.key)})"


def _log(log: Table, path: str | None) -> str:
    """A log as a table; the line that a crash cut short is left out."""
    types = {field.name: _SQL_TYPES[field.type] for field in log.schema}
    if path is None:
        return "SELECT " + ", ".join(f"NULL::{type_} AS {name}" for name, type_ in types.items()) + " WHERE false"
    columns = ", ".join(f"{name}: '{type_}'" for name, type_ in types.items())
    quoted = path.replace("'", "''")
    options = f"format = 'newline_delimited', ignore_errors = true, columns = {{{columns}}}"
    return f"SELECT * FROM read_json('{quoted}', {options})"


def _read_parquet(_name: str, paths: list[str]) -> str:
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"SELECT * FROM read_parquet([{listed}])"


def write_catalog(store: Store) -> None:
    """Write `catalog.sql`: the views with paths relative to the store, so that it may be moved."""
    store.write_text("catalog.sql", catalog(store.manifest(), _logs(store)))


def catalog(manifest: Manifest, logs: Mapping[str, str] = {}) -> str:
    """The text of `catalog.sql`. A log that is not among `logs` gets an empty view."""
    views = view_definitions(manifest, _read_parquet, logs)
    statements = [f"CREATE OR REPLACE VIEW {name} AS {select};" for name, select in views.items()]
    return _HEADER + "\n".join(statements) + "\n"


def _logs(store: Store) -> dict[str, str]:
    return {log.name: f"log/{log.name}.jsonl" for log in LOGS if store.has_log(log.name)}


def connect(store: Store, manifest: Manifest) -> duckdb.DuckDBPyConnection:
    """A DuckDB with the store's views that can reach no file at all. Raises StoreError.

    Arrow reads the tables for it: a DuckDB that may read a folder may also write there, and finds
    ways to do so inside of a SELECT.
    """
    import duckdb
    from pyarrow import dataset
    from pyarrow.fs import LocalFileSystem

    store.check(manifest)
    connection = duckdb.connect(":memory:")

    def register(name: str, paths: list[str]) -> str:
        resolved = [str((store.root / path).resolve()) for path in paths]
        files = dataset.dataset(resolved, format="parquet", filesystem=LocalFileSystem())
        registered = f"{name}_as_written" if name in JUDGED else name
        connection.register(registered, files)
        return f"SELECT * FROM {registered}"

    try:
        logs = {name: str((store.root / path).resolve()) for name, path in _logs(store).items()}
        views = view_definitions(manifest, register, logs)
        for log in LOGS:
            connection.execute(f"CREATE TABLE {log.name} AS {views[log.name]}")
        for name in JUDGED.keys() & views.keys():
            connection.execute(f"CREATE VIEW {name} AS {views[name]}")
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        connection.close()
        raise StoreError(
            f"a table of {store.root} cannot be read: {str(error).splitlines()[0]}",
            "stepsearch-data build makes missing tables anew, and broken ones with --force",
        ) from error
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def query(store: Store, sql: str, timeout: float) -> Iterator[pa.RecordBatchReader]:
    """Run one SELECT (or EXPLAIN of one) and stream its rows.

    `timeout` is in seconds and covers the reading of the rows. Raises QueryError, also while they are read.
    """
    import duckdb

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
    import duckdb

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
    kind = _kind(statements[0])
    if kind != "SELECT":
        raise QueryError(
            f"only SELECT (or EXPLAIN of one) is admitted, not {kind}", "write files with --output instead of COPY"
        )


def _kind(statement: duckdb.Statement) -> str:
    try:
        return statement.type.name
    except ValueError:  # kinds that the Python package has no name for
        return "this"


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

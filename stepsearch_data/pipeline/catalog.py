"""SQL over a store: DuckDB views of what is committed, and a locked-down way to query them.

DuckDB is imported where it is used: a build only writes the catalog.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stepsearch_data.core.errors import QueryError, StoreError, without_traceback
from stepsearch_data.core.validation import known_names
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import (
    ENGINE_VOTES,
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
    import polars as pl

_OPTION = r"(?:ANALYZE|FORMAT\s+\w+)"
_EXPLAIN = re.compile(rf"\s*EXPLAIN\s+(ANALYZE\s+)?(\(\s*{_OPTION}(\s*,\s*{_OPTION})*\s*\)\s*)?", re.IGNORECASE)
"""Matches no comment and no quote: DuckDB could read text after them differently than we do."""


@dataclass(frozen=True)
class Judged:
    """A table whose view also shows columns of a table `by` about the same rows."""

    by: Table[Any]
    columns: tuple[str, ...]
    key: tuple[str, ...]


JUDGED = {
    QUERIES.name: Judged(VOTES, ("kept", "waiting", "engines", "valid_engines", "gold_rank"), ("query_id",)),
    HITS.name: Judged(ENGINE_VOTES, ("valid",), ("query_id", "engine")),
}
LOGS = (LLM_CALLS, SEARCH_CALLS)
"""Tables that are read from the logs of those names."""

_SQL_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}
_BATCH_ROWS = 2_048  # DuckDB's minimum, as a batch of long texts is held in memory
_HEADER = "-- Views over this store, for any DuckDB: cd STORE && duckdb -init catalog.sql\n"


def _paths(manifest: Manifest, logs: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the files of each existing table, relative to the store. `logs` are the files of the logs."""
    paths = {name: [path] for name, path in logs.items()}
    for table in TABLES:
        output = manifest.output(table.name)
        if table not in (REJECTS, *LOGS) and output:
            paths[table.name] = [output.path]
    if manifest.stages:
        paths[REJECTS.name] = [entry.outputs[REJECTS.name].path for entry in manifest.stages.values()]
    return paths


def _views(manifest: Manifest, paths: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the SELECT of each view, by name. The view of a missing log is empty."""
    views = {log.name: _log(log, paths.get(log.name)) for log in LOGS}
    views |= {name: f"SELECT * FROM read_parquet({_quoted(of)})" for name, of in paths.items() if name not in views}
    judged = {name: _judged(views, name, judged, manifest) for name, judged in JUDGED.items() if name in views}
    return {**views, **judged}


def _judged(views: Mapping[str, str], name: str, judged: Judged, manifest: Manifest) -> str:
    """Join a table with the columns of its judge. They are null while the judge has not run on these very rows."""
    by = judged.by
    if by.name not in views or manifest.writer(by.name) not in manifest.fresh:
        types = {field.name: _SQL_TYPES[field.type] for field in by.schema}
        nulls = ", ".join(f"NULL::{types[column]} AS {column}" for column in judged.columns)
        return f"SELECT *, {nulls} FROM ({views[name]})"
    said = ", ".join(f"j.{column}" for column in judged.columns)
    return f"SELECT r.*, {said} FROM ({views[name]}) r LEFT JOIN ({views[by.name]}) j USING ({', '.join(judged.key)})"


def _log(log: Table[Any], paths: list[str] | None) -> str:
    """Select a log's records as a table, without a last line that a crash cut short."""
    types = {field.name: _SQL_TYPES[field.type] for field in log.schema}
    if paths is None:
        return "SELECT " + ", ".join(f"NULL::{type_} AS {name}" for name, type_ in types.items()) + " WHERE false"
    columns = ", ".join(f"{name}: '{type_}'" for name, type_ in types.items())
    options = f"format = 'newline_delimited', ignore_errors = true, columns = {{{columns}}}"
    return f"SELECT * FROM read_json({_quoted(paths)}, {options})"


def _quoted(texts: Iterable[str]) -> str:
    """Write texts as a list in SQL."""
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def write_catalog(store: Store) -> None:
    """Write `catalog.sql`: the views with paths relative to the store, so that it may be moved."""
    store.write_text("catalog.sql", catalog(store.manifest(), _logs(store)))


def catalog(manifest: Manifest, logs: Mapping[str, str] = {}) -> str:
    """Return the text of `catalog.sql`. A log that is not among `logs` gets an empty view."""
    views = _views(manifest, _paths(manifest, logs))
    statements = [f"CREATE OR REPLACE VIEW {name} AS {select};" for name, select in views.items()]
    return _HEADER + "\n".join(statements) + "\n"


def _logs(store: Store) -> dict[str, str]:
    return {log.name: f"log/{log.name}.jsonl" for log in LOGS if store.has_log(log.name)}


def connect(store: Store, manifest: Manifest, memory: int | None = None) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB that has the store's views and can only read their files. Raises StoreError.

    A DuckDB that may read a folder may also write there, even inside of a SELECT. So it gets only our own file
    system, which cannot write. `memory` limits in bytes what sorts, joins and groups may hold.
    """
    import duckdb

    from stepsearch_data.core.named_files import SCHEME, NamedFiles

    store.check(manifest)
    paths = _paths(manifest, _logs(store))
    names = {table: [f"{SCHEME}://{table}-{n}" for n in range(len(of))] for table, of in paths.items()}
    files = {name: store.inside(path) for table in paths for name, path in zip(names[table], paths[table], strict=True)}
    connection = duckdb.connect(":memory:")
    try:
        connection.register_filesystem(NamedFiles(files))
        connection.execute("SET parquet_metadata_cache = true")  # the query uses what its view has read
        connection.execute("SET enable_external_file_cache = false")  # the system's cache is enough
        if memory:
            connection.execute(f"SET memory_limit = '{memory}B'")
        for name, select in _views(manifest, names).items():
            connection.execute(f"CREATE VIEW {name} AS {select}")
    except (duckdb.Error, OSError) as error:
        connection.close()
        raise StoreError(
            f"a table of {store.root} cannot be read: {without_traceback(error).splitlines()[0]}",
            "stepsearch-data build builds missing tables again, and broken ones with --force",
        ) from error
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET allow_persistent_secrets = false")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
    connection.execute(f"SET allowed_paths = {_quoted(files)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def query(store: Store, sql: str, *, memory: int | None = None) -> Iterator[pa.RecordBatchReader]:
    """Run one SELECT (or EXPLAIN of one) and stream its rows; for `memory` see `connect`.

    Values do not count as memory, and nothing bounds the time: `cli.limits` bounds both for the whole process.
    Raises QueryError, also while the rows are read.
    """
    import duckdb

    failures = (duckdb.Error, pa.ArrowException, OSError, RuntimeError, MemoryError)  # DuckDB's, or Arrow's for them

    def explained(error: Exception) -> QueryError:
        if str(error).startswith("Out of Memory"):
            return QueryError(
                "the query needs more memory than it may take",
                "give it more: --memory GIB; or ask for fewer rows and columns",
            )
        text = without_traceback(error)
        return QueryError(text, _advice(store, text))

    def batches(reader: pa.RecordBatchReader, names: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in reader:
                yield batch.rename_columns(names)
        except failures as error:
            raise explained(error) from error

    _admit(sql)
    with store.reading() as manifest, connect(store, manifest, memory) as connection:
        try:
            reader = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        except failures as error:
            raise explained(error) from error
        schema = _distinct(reader.schema)
        yield pa.RecordBatchReader.from_batches(schema, batches(reader, schema.names))


def frame(store: Store, manifest: Manifest, name: str) -> pl.LazyFrame:
    """Return a table as a Polars frame with the columns of its view. Raises StoreError for a missing table."""
    import polars as pl

    known = {table.name: table for table in TABLES}
    if name not in known:
        raise StoreError(f"there is no table {name!r}", known_names(name, known))
    table = known[name]
    if table in LOGS:
        return pl.from_arrow(pa.Table.from_pylist(list(store.read_log(name)), schema=table.schema)).lazy()  # type: ignore[union-attr]  # a table, so no series
    if table is REJECTS:
        outputs = [entry.outputs[REJECTS.name] for entry in manifest.stages.values()]
        return pl.concat([pl.scan_parquet(store.table(REJECTS, output), glob=False) for output in outputs])
    rows = pl.scan_parquet(store.tables(manifest, table)[table], glob=False)
    judged = JUDGED.get(name)
    if judged is None:
        return rows
    if manifest.output(judged.by.name) and manifest.writer(judged.by.name) in manifest.fresh:
        said = pl.scan_parquet(store.tables(manifest, judged.by)[judged.by], glob=False)
        return rows.join(said.select(*judged.key, *judged.columns), on=judged.key, how="left", maintain_order="left")
    types = pl.from_arrow(judged.by.schema.empty_table()).schema  # type: ignore[union-attr]
    return rows.with_columns(pl.lit(None, types[column]).alias(column) for column in judged.columns)


def _distinct(schema: pa.Schema) -> pa.Schema:
    """Make a schema's names unique, as JSON and data frames need: a, a_1, a_2."""
    taken: set[str] = set()
    fields = []
    for field in schema:
        tries = (f"{field.name}_{number}" if number else field.name for number in itertools.count())
        name = next(name for name in tries if name not in taken)
        taken.add(name)
        fields.append(field.with_name(name))
    return pa.schema(fields)


def _admit(sql: str) -> None:
    """Refuse anything but one statement that only reads. DuckDB itself names the kind of statement."""
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
    if kind != "SELECT" and not (kind == "MULTI" and _can_be_selected_from(inner)):
        raise QueryError(
            f"only SELECT (or EXPLAIN of one) is admitted, not {kind}", "write files with --output instead of COPY"
        )


def _kind(statement: duckdb.Statement) -> str:
    try:
        return statement.type.name
    except ValueError:  # kinds that the Python package has no name for
        return "this"


def _can_be_selected_from(sql: str) -> bool:
    """Tell whether a PIVOT, which DuckDB splits into several statements, is a query and not a COPY of one."""
    import duckdb

    try:
        return len(duckdb.extract_statements("FROM (\n" + sql.rstrip("; \t\n") + "\n)")) == 1
    except duckdb.Error:
        return False


def _advice(store: Store, message: str) -> str:
    """Return what to do about a missing view."""
    match = re.search(r"Table with name (\w+) does not exist", message)
    names = {table.name for table in TABLES}
    if match and match[1] in names and store.manifest().output(match[1]) is None:
        return f"{match[1]} is not built yet: stepsearch-data build --store {store.root}"
    return "stepsearch-data schema lists tables and columns" if match or "Referenced column" in message else ""


def stale(store: Store) -> list[str]:
    """Return the committed stages whose rows were made from other inputs than those committed now."""
    manifest = store.manifest()
    return [name for name in manifest.stages if name not in manifest.fresh]


def check_current(store: Store) -> None:
    """Raise StoreError where some rows were made from other inputs than those committed now."""
    if outdated := stale(store):
        raise StoreError(
            f"the store is not up to date: {', '.join(outdated)} come from earlier inputs",
            f"stepsearch-data build --store {store.root}",
        )

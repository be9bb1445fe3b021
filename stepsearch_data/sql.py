"""SQL over a store: a DuckDB that has the views of its catalog, and can do nothing but read them."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stepsearch_data.core.errors import QueryError, StoreError, without_traceback
from stepsearch_data.pipeline.catalog import JUDGED, LOGS, files_of, log_files, quoted, views
from stepsearch_data.pipeline.passes import KEEP_SOME
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import OPTIONAL, TABLES, Table

if TYPE_CHECKING:
    import duckdb

_OPTION = r"(?:ANALYZE|FORMAT\s+\w+)"
_EXPLAIN = re.compile(rf"\s*EXPLAIN\s+(ANALYZE\s+)?(\(\s*{_OPTION}(\s*,\s*{_OPTION})*\s*\)\s*)?", re.IGNORECASE)
"""Matches no comment and no quote: DuckDB could read text after them differently than we do."""
_BY_TEXT = {"query", "query_table"}  # functions whose argument names tables
_BATCH_ROWS = 2_048  # DuckDB's minimum, as a batch of long texts is held in memory


def connect(store: Store, manifest: Manifest, memory: int | None = None, query: str = "") -> duckdb.DuckDBPyConnection:
    """Open a DuckDB that has the store's views and can only read their files. Raises StoreError.

    A DuckDB that may read a folder may also write there, even inside of a SELECT. So it gets only our own file
    system, which cannot write. `memory` limits in bytes what sorts, joins and groups may hold. Of a store at a URL,
    only the tables that the `query` names are fetched; the others have no rows.
    """
    import duckdb

    from stepsearch_data.core.named_files import SCHEME, NamedFiles

    aside = _not_named(query) if query and store.mirror else set()
    store.check(manifest, aside)
    logs = {name: file for name, file in log_files(store).items() if name not in aside}
    paths = {name: of for name, of in files_of(manifest, logs).items() if name not in aside}
    names = {table: [f"{SCHEME}://{table}-{n}" for n in range(len(of))] for table, of in paths.items()}
    files = {name: store.inside(path) for table in paths for name, path in zip(names[table], paths[table], strict=True)}
    connection = duckdb.connect(":memory:")
    try:
        connection.register_filesystem(NamedFiles(files))
        connection.execute("SET parquet_metadata_cache = true")  # the query uses what its view has read
        connection.execute("SET enable_external_file_cache = false")  # the system's cache is enough
        if memory:
            connection.execute(f"SET memory_limit = '{memory}B'")
        for name, select in views(manifest, names).items():
            connection.execute(f"CREATE VIEW {name} AS {select}")
        for table in TABLES:
            if table.name in aside and table not in LOGS and manifest.output(table.name):
                connection.register(table.name, schema_of(table).empty_table())
    except (duckdb.Error, OSError) as error:
        connection.close()
        raise StoreError(
            f"a table of {store.name} cannot be read: {without_traceback(error).splitlines()[0]}",
            "stepsearch-data build builds missing tables again, and broken ones with --force",
        ) from error
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET allow_persistent_secrets = false")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
    connection.execute(f"SET allowed_paths = {quoted(files)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def schema_of(table: Table[Any]) -> pa.Schema:
    """Return a table's columns, and those that its view has from another one."""
    judged = JUDGED.get(table.name)
    said = [field for field in judged.by.schema if field.name in judged.columns] if judged else []
    return pa.schema([*table.schema, *said])


def _not_named(query: str) -> set[str]:
    """Return the tables that a query does not name, nor needs for one that it names."""
    words = set(re.findall(r"\w+", query.lower()))
    if words & _BY_TEXT:
        return set()
    named = words | {JUDGED[name].by.name for name in words & JUDGED.keys()}
    return {table.name for table in TABLES} - named


def fetch(store: Store, query: str) -> None:
    """Fetch what a query reads of a store at a URL, which may take longer than the query. Raises StoreError."""
    with store.reading() as manifest:
        store.check(manifest, _not_named(query))


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
    with store.reading() as manifest, connect(store, manifest, memory, sql) as connection:
        try:
            reader = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        except failures as error:
            raise explained(error) from error
        schema = _distinct(reader.schema)
        yield pa.RecordBatchReader.from_batches(schema, batches(reader, schema.names))


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
        if match[1] in {table.name for table in OPTIONAL}:
            return KEEP_SOME
        return f"{match[1]} is not built yet: stepsearch-data build --store {shlex.quote(store.name)}"
    return "stepsearch-data schema lists tables and columns" if match or "Referenced column" in message else ""

"""The catalog of a store: a view of each table that is committed, as SQL and as a data frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.validation import known_names
from stepsearch_data.pipeline.readable import log_path
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import (
    ENGINE_VOTES,
    HITS,
    LLM_CALLS,
    MARKS,
    OPTIONAL,
    QUERIES,
    REJECTS,
    SEARCH_CALLS,
    TABLES,
    VOTES,
    Table,
)

if TYPE_CHECKING:
    import polars as pl


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
LOGS = (LLM_CALLS, SEARCH_CALLS, MARKS)
"""Tables that are read from the logs of those names."""

_SQL_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}
_LAST_MARKS = (
    "SELECT question_id, last.mark, last.note, last.marked_at FROM (SELECT question_id, max_by(said, line) AS last FROM"
    " (SELECT said, said.question_id, row_number() OVER () AS line FROM ({lines}) said"
    " WHERE mark IN ('good', 'bad', '')) GROUP BY question_id) WHERE last.mark || last.note <> ''"
)
_HEADER = "-- Views over this store, for any DuckDB: cd STORE && duckdb -init catalog.sql\n"


def files_of(manifest: Manifest, logs: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the files of each existing table, relative to the store. `logs` are the files of the logs."""
    paths = {name: [path] for name, path in logs.items()}
    for table in TABLES:
        output = manifest.output(table.name)
        if table not in (REJECTS, *LOGS) and output:
            paths[table.name] = [output.path]
    if manifest.stages:
        paths[REJECTS.name] = [entry.outputs[REJECTS.name].path for entry in manifest.stages.values()]
    return paths


def views(manifest: Manifest, paths: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the SELECT of each view, by name. The view of a missing log is empty."""
    selects = {log.name: _log(log, paths.get(log.name)) for log in LOGS}
    selects |= {name: f"SELECT * FROM read_parquet({quoted(of)})" for name, of in paths.items() if name not in selects}
    judged = {name: _judged(selects, name, judged, manifest) for name, judged in JUDGED.items() if name in selects}
    return {**selects, **judged}


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
    lines = f"SELECT * FROM read_json({quoted(paths)}, {options})"
    return _LAST_MARKS.format(lines=lines) if log is MARKS else lines


def quoted(texts: Iterable[str]) -> str:
    """Write texts as a list in SQL."""
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def write_catalog(store: Store) -> None:
    """Write `catalog.sql`: the views with paths relative to the store, so that it may be moved."""
    store.write_text("catalog.sql", catalog(store.manifest(), log_files(store)))


def catalog(manifest: Manifest, logs: Mapping[str, str] = {}) -> str:
    """Return the text of `catalog.sql`. A log that is not among `logs` gets an empty view."""
    selects = views(manifest, files_of(manifest, logs))
    statements = [f"CREATE OR REPLACE VIEW {name} AS {select};" for name, select in selects.items()]
    return _HEADER + "\n".join(statements) + "\n"


def log_files(store: Store) -> dict[str, str]:
    """Return the file of each log that is there, relative to the store."""
    return {log.name: log_path(log.name) for log in LOGS if store.has_log(log.name)}


def frame(store: Store, manifest: Manifest, name: str) -> pl.LazyFrame:
    """Return a table as a Polars frame with the columns of its view. Raises StoreError for a missing table."""
    import polars as pl

    known = {table.name: table for table in TABLES}
    if name not in known:
        raise StoreError(f"there is no table {name!r}", known_names(name, known))
    table = known[name]
    if table is MARKS:
        return pl.from_arrow(MARKS.to_arrow(store.marks().values())).lazy()  # type: ignore[union-attr]  # a table, so no series
    if table in LOGS:
        return pl.from_arrow(pa.Table.from_pylist(list(store.read_log(name)), schema=table.schema)).lazy()  # type: ignore[union-attr]  # a table, so no series
    if table is REJECTS:
        outputs = [entry.outputs[REJECTS.name] for entry in manifest.stages.values()]
        return pl.concat([pl.scan_parquet(store.table(REJECTS, output), glob=False) for output in outputs])
    if table in OPTIONAL and manifest.output(name) is None:
        raise StoreError(f"the store has no table {name}", "stepsearch-data schema says what it is")
    rows = pl.scan_parquet(store.tables(manifest, table)[table], glob=False)
    judged = JUDGED.get(name)
    if judged is None:
        return rows
    if manifest.output(judged.by.name) and manifest.writer(judged.by.name) in manifest.fresh:
        said = pl.scan_parquet(store.tables(manifest, judged.by)[judged.by], glob=False)
        return rows.join(said.select(*judged.key, *judged.columns), on=judged.key, how="left", maintain_order="left")
    types = pl.from_arrow(judged.by.schema.empty_table()).schema  # type: ignore[union-attr]
    return rows.with_columns(pl.lit(None, types[column]).alias(column) for column in judged.columns)


def stale(store: Store) -> list[str]:
    """Return the committed stages whose rows were made from other inputs than those committed now."""
    manifest = store.manifest()
    return [name for name in manifest.stages if name not in manifest.fresh]


def check_current(store: Store) -> None:
    """Raise StoreError where some rows were made from other inputs than those committed now."""
    if outdated := stale(store):
        raise StoreError(
            f"the store is not up to date: {', '.join(outdated)} come from earlier inputs",
            f"stepsearch-data build --store {store.name}, or look at the rest with stepsearch-data view",
        )

"""A store's tables as a report reads them: those that are up to date, and empty ones in place of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stepsearch_data.pipeline.catalog import JUDGED, LOGS
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import TABLES, Table
from stepsearch_data.sql import connect

if TYPE_CHECKING:
    import duckdb


def up_to_date(manifest: Manifest) -> Manifest:
    """Return the manifest without stages whose rows come from earlier inputs: what is left fits together."""
    return Manifest(stages={name: entry for name, entry in manifest.stages.items() if name in manifest.fresh})


def open_tables(store: Store, manifest: Manifest) -> duckdb.DuckDBPyConnection:
    """Open SQL over all tables there can be: one that the manifest lacks has no rows. Raises StoreError."""
    connection = connect(store, manifest)
    for table in TABLES:
        if table not in LOGS and (manifest.output(table.name) is None or not manifest.stages):
            connection.register(table.name, _schema(table).empty_table())
    return connection


def _schema(table: Table[Any]) -> pa.Schema:
    """Return a table's columns, and those that its view has from another one."""
    judged = JUDGED.get(table.name)
    said = [field for field in judged.by.schema if field.name in judged.columns] if judged else []
    return pa.schema([*table.schema, *said])

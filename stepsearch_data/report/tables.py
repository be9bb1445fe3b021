"""A store's tables as a report reads them: those that are up to date, and empty ones in place of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepsearch_data.pipeline.catalog import LOGS
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import TABLES
from stepsearch_data.sql import connect, schema_of

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
            connection.register(table.name, schema_of(table).empty_table())
    return connection

"""The whole list, filtered and sorted as it is shown, as a file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.report.listing import COLUMNS, POLICY, fitting, order, policies
from stepsearch_data.report.parts import name_of

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 10_000


def write_list(
    connection: duckdb.DuckDBPyConnection, asked: Mapping[str, Sequence[str]], kind: str, path: Path
) -> None:
    """Write the rows that fit a query string, whatever its offset and limit, as one of `KINDS`. Raises QueryError."""
    where, values = fitting(connection, asked)
    columns = [f'"{name}"' for name in COLUMNS if name != "right"]
    for at, name in enumerate(policies(connection), start=1):
        columns.append(f'"right"[{at}] AS {name_of(POLICY + name)}')
    sql = f"SELECT {', '.join(columns)} FROM listing WHERE {where} ORDER BY {order(asked)}"
    with connection.sql(sql, params=values).to_arrow_reader(_BATCH_ROWS) as reader:
        KINDS[kind](reader, path)


def _csv(reader: pa.RecordBatchReader, path: Path) -> None:
    """Write it as RFC 4180 says; several values stand in one cell, with spaces."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(reader.schema.names)
        for batch in reader:
            writer.writerows([_cell(value) for value in row.values()] for row in batch.to_pylist())


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, list) else value


def _jsonl(reader: pa.RecordBatchReader, path: Path) -> None:
    with open(path, "wb") as file:
        for batch in reader:
            file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist())


def _parquet(reader: pa.RecordBatchReader, path: Path) -> None:
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


KINDS: Mapping[str, Callable[[pa.RecordBatchReader, Path], None]] = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
"""How files of a list are written, by their suffixes."""

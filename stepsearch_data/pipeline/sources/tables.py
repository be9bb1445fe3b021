"""Rows of a Parquet or CSV file as dicts, without holding the file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.pipeline.errors import SourceError
from stepsearch_data.pipeline.files import open_regular

Row = dict[str, Any]
_ROWS = 100  # rows of questions may be long: each brings its paragraphs
_LONGEST = 200  # characters of what Arrow says
_HINT = "check the path after --source"


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file. Raises SourceError, also in their midst."""
    try:
        with open_regular(path) as stream, pq.ParquetFile(stream) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    yield without_nulls(row)
    except (OSError, ValueError, pa.ArrowException) as error:
        said = str(error).partition("\n")[0][:_LONGEST]
        reason = getattr(error, "strerror", None) or f"it is damaged, or no Parquet ({said})"
        raise SourceError(f"cannot read {path}: {reason}", _HINT) from error


def csv_rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file by the names in its first line. Raises SourceError, also in their midst."""
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                yield without_nulls(row)
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"cannot read {path}: {reason}", _HINT) from error


def without_nulls(value: Any) -> Any:
    """Arrow writes null where a row lacks a field: back to absent."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


READERS = {".parquet": parquet_rows, ".csv": csv_rows}
"""How a file is read, by the end of its name."""

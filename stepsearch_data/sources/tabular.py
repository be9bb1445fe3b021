"""Rows of a Parquet, CSV or tab-separated file, a bounded number in memory. A bad row of Parquet affects no other."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.core.errors import SourceError
from stepsearch_data.core.files import open_regular
from stepsearch_data.sources.files import LONGEST_ROW, Broken, open_stream

_BATCH = 256
_DPR = ("id", "text", "title")
Row = dict[str, Any]


def parquet_rows(
    path: Path, wanted: Collection[str] | None = None, expect: Callable[[int], None] = lambda _: None
) -> Iterator[Row | Broken]:
    """Yield the rows of a file, with the wanted columns only; `expect` is called with their number first.

    Raises SourceError when the file cannot be read.
    """
    try:
        with open_regular(path) as raw, pq.ParquetFile(raw) as file:
            expect(file.metadata.num_rows)
            columns = None if wanted is None else [name for name in file.schema_arrow.names if name in wanted]
            for batch in file.iter_batches(_BATCH, columns=columns):
                yield from _records(batch)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise SourceError(f"cannot read {path}: {reason}", "check the path") from error


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield rows by the names in the first line; a short line lacks the last ones. Raises SourceError, also midway."""
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                yield {name: value for name, value in row.items() if name is not None and value is not None}
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}", "check the path"
        ) from error


def tsv_rows(path: Path) -> Iterator[dict[str, str] | Broken]:
    """Yield DPR's passages: id, text, title, with or without that first line. Raises SourceError, also midway."""
    try:
        with open_stream(path) as stream, TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            csv.field_size_limit(LONGEST_ROW)  # for the whole process
            lines = csv.reader(text, delimiter="\t")
            first = next(lines, ["id"])
            for row in lines if first[:1] == ["id"] else chain([first], lines):
                if len(row) == len(_DPR):
                    yield dict(zip(_DPR, row, strict=True))
                else:
                    yield Broken("\t".join(row).encode(), f"{len(row)} columns instead of {', '.join(_DPR)}")
    except (OSError, ValueError, EOFError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"cannot read {path} as tab-separated values: {reason}", "check the path") from error


def without_nulls(value: Any) -> Any:
    """Remove nulls, which Arrow writes where a row lacks a field."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _records(batch: pa.RecordBatch) -> Iterator[Row | Broken]:
    """Yield rows as Python objects, and a Broken in the place of each one that Python cannot hold."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:  # not UTF-8, or a date beyond Python's
        if batch.num_rows == 1:
            yield Broken(b"", f"the row cannot be read: {error}")
            return
        for at in range(batch.num_rows):
            yield from _records(batch.slice(at, 1))

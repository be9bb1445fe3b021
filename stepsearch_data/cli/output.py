"""Query results as csv, json, jsonl or parquet, streaming, to a file or to stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from stepsearch_data.core.atomic import writing
from stepsearch_data.core.errors import QueryError

_GROUP_ROWS = 50 * 2_048  # DuckDB's batches
_INTEGERS = 1 << 63  # most readers of JSON cannot hold larger ones


def write(reader: pa.RecordBatchReader, form: str, path: Path | None, *, store: Path | None = None) -> None:
    """Write all rows. A file appears under its name only when it is whole.

    Raises QueryError, also for a file inside the folder `store`.
    """
    try:
        with _target(path, store) as file:
            {"csv": _csv, "json": _json, "jsonl": _jsonl, "parquet": _parquet}[form](reader, file)
    except pa.ArrowException as error:
        reason = str(error).partition("\n")[0]
        raise QueryError(f"a column cannot be written as {form}; cast it to VARCHAR in the query ({reason})") from error


@contextmanager
def _target(path: Path | None, store: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    try:
        with _special(path) if _is_special(path) else _whole(path, store) as file:
            yield file
    except OSError as error:
        raise QueryError(f"cannot write {path}: {error.strerror or error}") from error


def _is_special(path: Path) -> bool:
    """Tell whether this is a device or a FIFO: rows go into it, and no file may replace it."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _special(path: Path) -> Iterator[BinaryIO]:
    with open(path, "wb") as file:
        yield file


@contextmanager
def _whole(path: Path, store: Path | None) -> Iterator[BinaryIO]:
    """Open a file that takes its name when it is whole. A symlink stays, and its target is replaced."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise QueryError(f"cannot write {path}: it is a folder")
    if store is not None and target.is_relative_to(os.path.realpath(store)):
        raise QueryError(f"cannot write {path}: it lies in the store and could damage it")
    with writing(target) as part, open(part, "wb") as file:
        yield file


def _csv(reader: pa.RecordBatchReader, file: BinaryIO) -> None:
    """Write rows as CSV. Nested columns become JSON text, which CSV can hold."""
    import pyarrow.csv as pa_csv

    nested = [at for at, field in enumerate(reader.schema) if pa.types.is_nested(field.type)]
    schema = reader.schema
    for at in nested:
        schema = schema.set(at, pa.field(schema.field(at).name, pa.string()))
    with pa_csv.CSVWriter(file, schema) as writer:
        for batch in reader:
            columns = list(batch.columns)
            for at in nested:
                columns[at] = pa.array(
                    [None if v is None else _dump(v).decode() for v in values(columns[at])], pa.string()
                )
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _jsonl(reader: pa.RecordBatchReader, file: BinaryIO) -> None:
    file.writelines(row + b"\n" for row in _rows(reader))


def _json(reader: pa.RecordBatchReader, file: BinaryIO) -> None:
    separator = b"[\n"
    for row in _rows(reader):
        file.write(separator + row)
        separator = b",\n"
    file.write(b"\n]\n" if separator == b",\n" else b"[]\n")


def _parquet(reader: pa.RecordBatchReader, file: BinaryIO) -> None:
    from stepsearch_data.core.parquet import ParquetWriter

    writer = ParquetWriter(file, reader.schema, pa.Table.from_batches, rows_per_group=_GROUP_ROWS, buffer_rows=1)
    for batch in reader:
        writer.append(batch)
    writer.finish()


def _rows(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    for batch in reader:
        for row in values(batch):
            yield _dump(row)


def values(data: pa.RecordBatch | pa.Array) -> list[Any]:
    """Convert rows or values to Python objects. Raises QueryError for dates that Python does not know."""
    try:
        return data.to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types
    except (OverflowError, ValueError, pa.ArrowException) as error:
        raise QueryError(f"a value cannot be shown: {error}", "cast it to VARCHAR in the query") from error


def _dump(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    """Convert decimals, which DuckDB's sums are, to numbers, and what JSON does not know to text."""
    if not isinstance(value, Decimal):
        return readable(value)
    whole = int(value)
    return whole if whole == value and abs(whole) < _INTEGERS else float(value)


def readable(value: Any) -> str:
    """Write a value as text that DuckDB reads too: bytes as hex, intervals with their units."""
    if isinstance(value, bytes):
        return value.hex()
    return _interval(value) if isinstance(value, pa.MonthDayNano) else str(value)


def _interval(value: Any) -> str:
    seconds = f"{Decimal(value.nanoseconds).scaleb(-9).normalize():f}"
    parts = ((value.months, "months"), (value.days, "days"), (value.nanoseconds and seconds, "seconds"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 days"

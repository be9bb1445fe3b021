"""Query results as csv, json, jsonl or parquet, streaming, to a file or to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from stepsearch_data.pipeline.errors import QueryError

_INTEGERS = 1 << 63  # larger ones are beyond most readers of JSON


def write(reader: pa.RecordBatchReader, form: str, path: Path | None) -> None:
    """Write all rows. A file appears under its name only when it is whole."""
    with _target(path) as file:
        {"csv": _csv, "json": _json, "jsonl": _jsonl, "parquet": _parquet, "table": _csv}[form](reader, file)


@contextmanager
def _target(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    if path.is_dir():
        raise QueryError(f"cannot write {path}: it is a folder")
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise QueryError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _csv(reader: pa.RecordBatchReader, file: BinaryIO) -> None:
    """Nested columns become JSON text, which CSV can hold."""
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
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def _rows(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    for batch in reader:
        for row in values(batch):
            yield _dump(row)


def values(data: pa.RecordBatch | pa.Array) -> list[Any]:
    """Rows or values as Python objects. Raises QueryError for dates that Python does not know."""
    try:
        return data.to_pylist()  # type: ignore[no-any-return]
    except (OverflowError, ValueError) as error:
        raise QueryError(f"a value cannot be shown: {error}", "cast it to VARCHAR in the query") from error


def _dump(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    """Decimals, which DuckDB's sums are, as numbers; what JSON does not know as text."""
    if not isinstance(value, Decimal):
        return str(value)
    whole = int(value)
    return whole if whole == value and abs(whole) < _INTEGERS else float(value)

"""The one writer of Parquet files."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.core.arrow import from_bytes, to_bytes

T = TypeVar("T")

_GROUP_BYTES = 64 << 20
_BUFFER_ROWS = 500


class ParquetWriter(Generic[T]):
    """Writes rows, which `to_arrow` converts so many at a time, to a file in row groups, compressed with zstd.

    A row group ends at `rows_per_group` rows or 64 MiB, counted at each write: the bytes depend on the rows and on
    how they come, never on timing. All methods that write raise OSError, as on a full disk.
    """

    def __init__(
        self,
        file: BinaryIO,
        schema: pa.Schema,
        to_arrow: Callable[[list[T]], pa.Table],
        *,
        rows_per_group: int,
        buffer_rows: int = _BUFFER_ROWS,
        **options: bool,
    ) -> None:
        self._file = file
        self._held = io.BytesIO()  # Arrow aborts the process where a write fails under content-defined chunking
        self._writer = pq.ParquetWriter(self._held, schema, compression="zstd", **options)
        self._schema, self._to_arrow = schema, to_arrow
        self._rows_per_group, self._buffer_rows = rows_per_group, buffer_rows
        self._rows: list[T] = []
        self._extended = pa.Table.from_batches([], schema)  # `empty_table` cannot make lists of JSON
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        self.count = 0

    def append(self, row: T) -> None:
        """Add one row."""
        self._rows.append(row)
        if len(self._rows) >= self._buffer_rows:
            self._drain()

    def extend(self, rows: pa.Table) -> None:
        """Add rows of the file's schema as if each was appended: the bytes do not depend on how many come at once."""
        self._extended = pa.concat_tables([self._extended, rows])
        while self._extended.num_rows >= self._buffer_rows:
            self._add(_fresh(self._extended.slice(0, self._buffer_rows)))
            self._extended = self._extended.slice(self._buffer_rows)

    def write(self, rows: pa.Table) -> None:
        """Add many rows, in Arrow form; columns are cast to the file's schema."""
        self._drain()
        self._add(rows.select(self._schema.names).cast(self._schema))

    def write_groups(self, rows: pa.Table, rows_per_group: int) -> None:
        """Write many rows at once, as row groups of their own."""
        self._writer.write_table(rows, row_group_size=rows_per_group)
        self._pass_on()

    def finish(self) -> None:
        """Write what is pending and the end of the file, which is whole then."""
        self._drain()
        self._flush()
        self._writer.close()
        self._pass_on()

    def close(self) -> None:
        """Close the file, whole or not."""
        with suppress(pa.ArrowException):
            self._writer.close()
        with suppress(OSError):
            self._file.close()

    def _drain(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._add(self._to_arrow(rows))
        if self._extended.num_rows:
            rest, self._extended = self._extended, pa.Table.from_batches([], self._schema)
            self._add(_fresh(rest))

    def _add(self, rows: pa.Table) -> None:
        self.count += rows.num_rows
        self._pending.append(rows)
        self._pending_rows += rows.num_rows
        self._pending_bytes += rows.nbytes
        if self._pending_rows >= self._rows_per_group or self._pending_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            rows, self._pending = pa.concat_tables(self._pending), []
            self._pending_rows = self._pending_bytes = 0
            self.write_groups(rows, self._rows_per_group)

    def _pass_on(self) -> None:
        self._file.write(self._held.getbuffer())
        self._file.flush()
        self._held.seek(0)
        self._held.truncate()


def _fresh(rows: pa.Table) -> pa.Table:
    """Return rows as if just made. A slice may keep a validity bitmap without nulls, which would count as bytes."""
    return from_bytes(to_bytes(rows))

"""Arrow tables on their way between processes, and in files that are mapped into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow IPC stream of one batch; a slice without the rest of its buffers."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow ships no types


def from_bytes(data: bytes) -> pa.Table:
    """Return the table of an Arrow IPC stream, without copying its buffers."""
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


class Sent:
    """A table that may be sent to another process. Pickled by itself, a slice would take the whole table along."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (to_bytes(self.table),)


def _received(data: bytes) -> Sent:
    return Sent(from_bytes(data))


def filtered(batches: Iterable[Any], mask: pa.Array) -> Iterator[Any]:
    """Yield each batch of a table with the rows that a mask of the whole table takes."""
    start = 0
    for batch in batches:
        yield batch.filter(mask.slice(start, batch.num_rows))
        start += batch.num_rows


def gather(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return these rows of a table. Arrow's `take` would first copy all that it has, to join its batches."""
    batches = table.to_batches()
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    ends = ascending.searchsorted(starts)
    parts = [
        batch.take(pa.array(ascending[first:last] - start))
        for batch, start, first, last in zip(batches, starts[:-1], ends[:-1], ends[1:], strict=True)
        if last > first
    ]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.Table.from_batches(parts, table.schema).take(pa.array(back))

"""Arrow tables on their way between processes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


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

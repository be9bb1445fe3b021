"""Tables between processes, and single rows of large ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stepsearch_data.core.arrow import Sent, gather


def parts(*sizes: int) -> pa.Table:
    """A table of consecutive numbers in batches of these sizes."""
    ends = np.cumsum(sizes)
    numbers = [pa.array(range(end - size, end), pa.int64()) for size, end in zip(sizes, ends, strict=True)]
    return pa.table({"n": pa.chunked_array(numbers), "text": pa.chunked_array([n.cast("string") for n in numbers])})


def test_rows_come_in_the_order_in_which_they_are_asked_for() -> None:
    rows = [6, 0, 5, 5, 2, 3]
    found = gather(parts(3, 1, 0, 4), np.array(rows))
    assert (found["n"].to_pylist(), found["text"].to_pylist()) == (rows, list(map(str, rows)))


def test_of_no_rows_there_is_an_empty_table() -> None:
    assert gather(parts(3), np.empty(0, np.int64)).num_rows == 0
    assert gather(parts(3).schema.empty_table(), np.empty(0, np.int64)).schema == parts(3).schema


def test_a_slice_is_sent_without_the_rest_of_its_table() -> None:
    whole = pa.table({"n": range(100_000)})
    function, arguments = Sent(whole.slice(7, 2)).__reduce__()
    assert function(*arguments).table["n"].to_pylist() == [7, 8]
    assert len(arguments[0]) < 1_000

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from stepsearch_data.pipeline.in_order import InOrder

ROWS = [("a", 1), ("a", 2), ("b", 3), ("skipped", 4), ("c", 5), ("c", 6), ("d", 7)]


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[InOrder]:
    """Rows in groups of two, read as they are needed."""
    frame = pl.DataFrame(ROWS, schema=["letter", "n"], orient="row").with_columns(other=pl.lit("not read"))
    pq.write_table(frame.to_arrow(), tmp_path / "letters.parquet", row_group_size=2)
    with pq.ParquetFile(tmp_path / "letters.parquet") as file:
        yield InOrder(file, "letter", ["letter", "n"])


def take(letters: InOrder, *keys: str) -> list[int]:
    return letters.take(pl.Series(keys))["n"].to_list()


def test_each_call_goes_on_after_the_one_before(letters: InOrder) -> None:
    assert take(letters, "a") == [1, 2]
    assert take(letters, "b", "c", "c") == [3, 5, 6]
    assert take(letters, "d") == [7]


def test_the_last_key_may_come_again(letters: InOrder) -> None:
    assert take(letters, "a", "b") == [1, 2, 3]
    assert take(letters, "b", "c") == [3, 5, 6]
    assert take(letters, "c") == [5, 6]
    assert take(letters, "c", "d") == [5, 6, 7]


def test_a_key_may_have_no_rows(letters: InOrder) -> None:
    assert take(letters, "a", "none", "c") == [1, 2, 5, 6]
    assert take(letters, "d") == [7]

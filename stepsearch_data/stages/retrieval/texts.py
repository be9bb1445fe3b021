"""What the stage `retrieve` asks: the distinct texts of the queries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.core.lazy import Lazy

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")

_ROWS = 20_000  # read at once


class Texts:
    """The distinct texts of a file of queries, numbered in the order in which they first occur.

    They stay in the file. `of` holds the number of each query's text.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        query = pl.col("query")  # two hashes have 128 bits: no two of a billion texts share them
        hashes = pl.scan_parquet(path, glob=False).select(one=query.hash(1), other=query.hash(2))
        places = hashes.with_row_index("place").select(pl.col("place").first().over("one", "other"))
        first = places.collect()["place"].to_numpy()
        self._is_first = first == np.arange(len(first))
        self.of = (np.cumsum(self._is_first, dtype=np.int64) - 1)[first]

    def __len__(self) -> int:
        return int(self._is_first.sum())

    def batches(self, size: int) -> Iterator[tuple[int, list[str]]]:
        """Yield all texts in their order, so many at a time, with the number of the first of them."""
        done, read = 0, 0
        waiting: list[str] = []
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_ROWS, columns=["query"]):
                new = pa.array(self._is_first[read : read + batch.num_rows])
                waiting += batch.column("query").filter(new).to_pylist()
                read += batch.num_rows
                whole = len(waiting) - len(waiting) % size
                for start in range(0, whole, size):
                    yield done + start, waiting[start : start + size]
                done, waiting = done + whole, waiting[whole:]
        if waiting:
            yield done, waiting

    def rows(self, numbers: pl.Series) -> pl.DataFrame:
        """Return `text` (its number), `question_id` and `query` of the first query with each of these texts."""
        places = np.flatnonzero(self._is_first)[numbers.to_numpy()].astype(np.uint32)
        queries = pl.scan_parquet(self._path, glob=False).select("question_id", "query").with_row_index("place")
        of = pl.LazyFrame({"text": numbers, "place": places})
        return of.join(queries, on="place", maintain_order="left").drop("place").collect()

"""Reading a table beside another one that has the same order, some keys at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from stepsearch_data.core.lazy import Lazy

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")


class InOrder:
    """Reads the rows of some values of the column `key` at a time, in the order of the file."""

    def __init__(self, file: pq.ParquetFile, key: str, columns: Sequence[str]) -> None:
        self._key = key
        self._batches = file.iter_batches(columns=list(columns))
        self._rows = pl.DataFrame(file.schema_arrow.empty_table().select(list(columns)))

    def take(self, keys: pl.Series) -> pl.DataFrame:
        """Return the rows of these keys, which follow those of the call before; its last one may come again.

        The last key has rows, or the whole file is read.
        """
        while not self._is_past(keys[-1]) and (batch := next(self._batches, None)):
            self._rows = pl.concat([self._rows, pl.DataFrame(batch)])
        rows = self._rows
        first = (rows[self._key] == keys[-1]).arg_max() or 0
        self._rows = rows[first:]
        return rows.filter(pl.col(self._key).is_in(keys.unique().implode()))

    def _is_past(self, key: str) -> bool:
        found = self._rows[self._key] == key
        return bool(found.any()) and not found[-1]

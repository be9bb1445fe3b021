"""What an engine has answered: rows in a file, by the number of the text that was asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stepsearch_data.core.arrow import gather
from stepsearch_data.core.lazy import Lazy
from stepsearch_data.search.postings import runs

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")

_ROWS = 20_000  # per record batch


class Answers:
    """An engine's hits for all texts, in a file: rows that begin with the column `text`, the number of a text."""

    def __init__(self, path: Path, texts: int, columns: Mapping[str, type[pl.DataType]]) -> None:
        self._path = path
        self._counts = np.zeros(texts, np.int64)
        self._pending = [pl.DataFrame(schema=columns)]
        self._file = pa.ipc.new_file(str(path), _to_arrow(self._pending[0]).schema)

    def add(self, rows: pl.DataFrame) -> None:
        """Add the rows of texts that follow those before. Raises OSError, as on a full disk."""
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= _ROWS:
            self._flush()

    def close(self) -> None:
        """End the file, which can be read from then on."""
        self._flush()
        self._file.close()
        self._table = pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()
        self._starts = np.cumsum(self._counts) - self._counts

    def of(self, texts: NDArray[np.int64]) -> pl.DataFrame:
        """Return the rows of some texts; `place` is that of the text among these."""
        lengths = self._counts[texts]
        rows = gather(self._table, runs(self._starts[texts], lengths))
        places = np.repeat(np.arange(len(texts), dtype=np.uint32), lengths)
        return pl.DataFrame(rows).insert_column(0, pl.Series("place", places))

    def failed(self) -> pl.DataFrame:
        """Return `text` and `error` of the texts that were not answered."""
        told = self._table.select(["text", "error"])
        return pl.DataFrame(told.filter(told["error"].is_valid()))

    def _flush(self) -> None:
        rows = pl.concat(self._pending)
        self._pending = [rows.clear()]
        texts, counts = np.unique(rows["text"].to_numpy(), return_counts=True)
        self._counts[texts] = counts
        self._file.write_table(_to_arrow(rows))


def _to_arrow(rows: pl.DataFrame) -> Any:
    """Return rows as one batch, with types that Arrow's kernels know."""
    return rows.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())

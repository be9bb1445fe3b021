"""The Parquet files of a config: shards of bounded size, their row groups small enough for the Hub's viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from stepsearch_data.core.parquet import ParquetWriter
from stepsearch_data.release.dataset import Config

_GROUP_BYTES = 32 << 20  # of a row group in memory, far below the 100 MB that the viewer reads
_BUFFER_ROWS = 50  # rows that become Arrow at a time


class _Shard(ParquetWriter[Any]):
    """Writes one shard. `bytes` counts what its rows take in Arrow's memory, as `datasets` does."""

    def __init__(self, path: Path, config: Config) -> None:
        super().__init__(
            open(path, "wb"),  # noqa: SIM115 - closed by `close`
            config.schema,
            config.to_arrow,
            rows_per_group=config.rows_per_group,
            buffer_rows=_BUFFER_ROWS,
            use_content_defined_chunking=True,  # a new version uploads only what changed
            write_page_index=True,
        )
        self.bytes = 0

    def write_groups(self, rows: pa.Table, rows_per_group: int) -> None:
        """Write a row group, or several where single rows are huge."""
        if rows.nbytes > _GROUP_BYTES and rows.num_rows > 1:
            half = rows.num_rows // 2
            self.write_groups(rows[:half], rows_per_group)
            self.write_groups(rows[half:], rows_per_group)
        else:
            self.bytes += rows.nbytes
            super().write_groups(rows, rows_per_group)


class Shards:
    """Writes the rows of one split of a config to `folder/SPLIT-00000-of-0000N.parquet`.

    The bytes depend on the rows and on `shard_bytes` alone. A shard ends after the row group that fills it.
    `rows` and `bytes` count all that the finished shards hold.
    """

    def __init__(self, folder: Path, split: str, config: Config, shard_bytes: int) -> None:
        self._folder, self._split, self._config, self._shard_bytes = folder, split, config, shard_bytes
        self._shard: _Shard | None = None
        self._paths: list[Path] = []
        self.rows = self.bytes = 0

    def append(self, row: Any) -> None:
        """Add a row of the config's model."""
        if self._shard and self._paths[-1].stat().st_size >= self._shard_bytes:
            self._end_shard()
        if self._shard is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._paths.append(self._folder / f"{self._split}-{len(self._paths):05}.part")
            self._shard = _Shard(self._paths[-1], self._config)
        self._shard.append(row)

    def finish(self) -> list[Path]:
        """Write what is pending, and return the shards under names that say how many there are. Raises OSError."""
        self._end_shard()
        total = len(self._paths)
        for number, path in enumerate(self._paths):
            self._paths[number] = path.rename(path.with_name(f"{self._split}-{number:05}-of-{total:05}.parquet"))
        return self._paths

    def close(self) -> None:
        """Close a file that will never be whole. Does nothing after `finish`."""
        if self._shard:
            self._shard.close()

    def _end_shard(self) -> None:
        if self._shard:
            self._shard.finish()
            self._shard.close()
            self.rows += self._shard.count
            self.bytes += self._shard.bytes
        self._shard = None

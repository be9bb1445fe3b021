"""The Parquet files of a config: shards of bounded size, their row groups small enough for the Hub's viewer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from stepsearch_data.core.parquet import ParquetWriter
from stepsearch_data.release.dataset import Config

_GROUP_BYTES = 32 << 20  # of a row group in memory, far below the 100 MB that the viewer reads
_BATCH = 20  # rows that become Arrow at a time


@dataclass
class Written:
    """What a split has come to; `size` is its bytes in Arrow's memory, as `datasets` counts them."""

    rows: int = 0
    size: int = 0
    paths: list[Path] = field(default_factory=list)


class Shards:
    """Writes the rows of one split of a config to `folder/SPLIT-00000-of-0000N.parquet`.

    The bytes depend on the rows and on `shard_bytes` alone. A shard ends after the row group that fills it.
    """

    def __init__(self, folder: Path, split: str, config: Config, shard_bytes: int) -> None:
        self._folder, self._split, self._config, self._shard_bytes = folder, split, config, shard_bytes
        self._rows: list[Any] = []
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._file: ParquetWriter[Any] | None = None
        self.written = Written()

    def append(self, row: Any) -> None:
        """Add a row of the config's model."""
        self._rows.append(row)
        if len(self._rows) == _BATCH:
            self._drain()

    def finish(self) -> Written:
        """Write what is pending, and give the shards the names that tell how many they are. Raises OSError."""
        self._drain()
        self._flush()
        self._end_shard()
        total = len(self.written.paths)
        for number, path in enumerate(self.written.paths):
            name = path.with_name(f"{self._split}-{number:05}-of-{total:05}.parquet")
            self.written.paths[number] = path.rename(name)
        return self.written

    def close(self) -> None:
        """Let go of a file that will never be whole. Does nothing after `finish`."""
        if self._file:
            self._file.close()

    def _drain(self) -> None:
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        table = self._config.to_arrow(rows)
        if self._pending_bytes + table.nbytes > _GROUP_BYTES:
            self._flush()
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        self.written.rows += table.num_rows
        self.written.size += table.nbytes
        if sum(part.num_rows for part in self._pending) >= self._config.rows_per_group:
            self._flush()

    def _flush(self) -> None:
        """Write the pending rows: one row group, or several where single rows are huge."""
        if not self._pending:
            return
        table = pa.concat_tables(self._pending)
        groups = -(-self._pending_bytes // _GROUP_BYTES)
        self._pending, self._pending_bytes = [], 0
        self._shard().write_groups(table, max(1, -(-table.num_rows // groups)))
        if self.written.paths[-1].stat().st_size >= self._shard_bytes:
            self._end_shard()

    def _shard(self) -> ParquetWriter[Any]:
        if self._file:
            return self._file
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._split}-{len(self.written.paths):05}.part"
        self.written.paths.append(path)
        self._file = ParquetWriter(
            open(path, "wb"),  # noqa: SIM115 - closed by `close`
            self._config.schema,
            self._config.to_arrow,
            rows_per_group=self._config.rows_per_group,
            use_content_defined_chunking=True,  # a new version uploads only what changed
            write_page_index=True,
        )
        return self._file

    def _end_shard(self) -> None:
        if self._file:
            self._file.finish()
            self._file.close()
        self._file = None

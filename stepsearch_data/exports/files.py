"""The files of an export: Parquet, JSON Lines or JSON, one per split. They appear when all of them are whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.core.atomic import part_of, place, write_whole
from stepsearch_data.core.parquet import ParquetWriter

Row = dict[str, Any]
_GROUP_ROWS = 1_000
_SPLITS, _SUFFIXES = ("train", "validation"), ("parquet", "jsonl")
# An export removes only files with these marks: another file may have such a name too, as a source's train.jsonl.
_MARK = {b"stepsearch-data": b"export"}
_FIRST = b'{"conversations":['


class _Parquet(ParquetWriter[Row]):
    """Row groups of a thousand rows: memory stays bounded, and the bytes depend on the rows alone."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        schema = schema.with_metadata(_MARK)
        super().__init__(
            open(path, "wb"),  # noqa: SIM115 - closed by `close`
            schema,
            partial(pa.Table.from_pylist, schema=schema),
            rows_per_group=_GROUP_ROWS,
            buffer_rows=_GROUP_ROWS,
            write_page_index=True,
        )


class _Lines:
    """One JSON object per line, UTF-8."""

    def __init__(self, path: Path, _: pa.Schema) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `close`

    def append(self, row: Row) -> None:
        self._file.write(orjson.dumps(row) + b"\n")

    def finish(self) -> None:
        self._file.flush()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


class _Array(_Lines):
    """One JSON array, an object per line."""

    _separator = b"[\n"

    def append(self, row: Row) -> None:
        self._file.write(self._separator + orjson.dumps(row))
        self._separator = b",\n"

    def finish(self) -> None:
        self._file.write(b"\n]\n")
        super().finish()


_KINDS: dict[str, type[_Parquet | _Lines]] = {"parquet": _Parquet, "jsonl": _Lines, "json": _Array}


class Files:
    """Writes rows to `folder/SPLIT.SUFFIX`. A context manager: an error inside it leaves no file."""

    def __init__(self, folder: Path, suffix: str, schema: pa.Schema) -> None:
        self._folder, self._suffix, self._schema = folder, suffix, schema
        self._writers: dict[str, _Parquet | _Lines] = {}
        self.rows: Counter[str] = Counter()

    def __enter__(self) -> Self:
        """Make the folder. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Remove what was not committed."""
        for writer in self._writers.values():
            writer.close()
        for split in self._writers:
            part_of(self.path(split)).unlink(missing_ok=True)

    def path(self, split: str) -> Path:
        """Return the path of a split's file."""
        return self._folder / f"{split}.{self._suffix}"

    def append(self, split: str, row: Row) -> None:
        """Add a row to its split's file."""
        if split not in self._writers:
            part = part_of(self.path(split))
            part.unlink(missing_ok=True)  # a link would be followed
            self._writers[split] = _KINDS[self._suffix](part, self._schema)
        self._writers[split].append(row)
        self.rows[split] += 1

    def commit(self, *, alone: bool) -> None:
        """Finish all files, then give them their names. If `alone`, remove other splits' files of earlier exports.

        A loader of the whole folder would read those too. Raises OSError.
        """
        for writer in self._writers.values():
            writer.finish()
            writer.close()
        for split in self._writers:
            place(part_of(self.path(split)), self.path(split))
        written = {self.path(split) for split in self._writers}
        splits = (self._folder / f"{split}.{suffix}" for split in _SPLITS for suffix in _SUFFIXES)
        for path in splits if alone else ():
            if path not in written and path.is_file() and _is_export(path):
                path.unlink()

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        """Write further files beside the others."""
        for name, data in files.items():
            write_whole(self._folder / name, data)


def _is_export(path: Path) -> bool:
    """Tell whether an export of trajectories wrote this file."""
    with suppress(OSError, pa.ArrowException):
        if path.suffix == ".parquet":
            return _MARK.items() <= (pq.read_schema(path).metadata or {}).items()
        with open(path, "rb") as file:
            return file.read(len(_FIRST)) == _FIRST
    return False

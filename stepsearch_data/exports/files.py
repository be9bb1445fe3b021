"""The files of an export: Parquet, JSON Lines or JSON, one per split, or a folder of sessions per split.

They appear when all of them are whole.
"""

from __future__ import annotations

import os
import re
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

from stepsearch_data.core.atomic import part_of, place, remove, write_whole
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.files import open_regular
from stepsearch_data.core.parquet import ParquetWriter
from stepsearch_data.exports.traces import HARNESS, session_lines

Row = dict[str, Any]
_GROUP_ROWS = 1_000
_SPLITS, _SUFFIXES = ("train", "validation"), ("parquet", "jsonl")
# An export removes only files with these marks: another file may have such a name too, as a source's train.jsonl.
_MARK = {b"stepsearch-data": b"export"}
_FIRST = (b'{"conversations":[', b'{"schema_version":"ATIF-')
_SESSION = f'{{"type":"session","harness":"{HARNESS}"'.encode()
_NUMBERED = re.compile(r"\d{4,}/\d{7,}\.jsonl")
_IN_FOLDER = 1_000  # sessions; the Hub wants less than ten thousand files in a folder


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


class _Sessions:
    """A folder with a file per session, numbered, a thousand in an inner folder."""

    def __init__(self, path: Path, _: pa.Schema) -> None:
        self._path, self._count = path, 0

    def append(self, row: Row) -> None:
        path = self._path / f"{self._count // _IN_FOLDER:04}" / f"{self._count:07}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(session_lines(row))
        self._count += 1

    def finish(self) -> None:
        """Do nothing: each file is whole."""

    def close(self) -> None:
        """Do nothing: no file is open."""


_Writer = _Parquet | _Lines | _Sessions
_KINDS: dict[str, type[_Writer]] = {"parquet": _Parquet, "jsonl": _Lines, "json": _Array}


class Files:
    """Writes rows to `folder/SPLIT.SUFFIX`, or if `apart` sessions to files in `folder/SPLIT`.

    A context manager: an error inside it leaves no file.
    """

    def __init__(self, folder: Path, suffix: str, schema: pa.Schema, *, apart: bool = False) -> None:
        self._folder, self._schema = folder, schema
        self._end, self._kind = ("", _Sessions) if apart else (f".{suffix}", _KINDS[suffix])
        self._writers: dict[str, _Writer] = {}
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
            remove(part_of(self.path(split)))

    def path(self, split: str) -> Path:
        """Return the path of a split's file or folder."""
        return self._folder / f"{split}{self._end}"

    def append(self, split: str, row: Row) -> None:
        """Add a row to its split. Raises ConfigError where a folder of something else is in the place of sessions."""
        if split not in self._writers:
            path, part = self.path(split), part_of(self.path(split))
            if self._kind is _Sessions and os.path.lexists(path) and not _holds_sessions(path):
                raise ConfigError(f"{path} is there, and no export wrote it", "choose another --output")
            remove(part)  # a link would be followed
            self._writers[split] = self._kind(part, self._schema)
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
        splits = [self._folder / split for split in _SPLITS] if alone else []
        files = (path.with_suffix(f".{suffix}") for path in splits for suffix in _SUFFIXES)
        ours = (*filter(_holds_sessions, splits), *(path for path in files if path.is_file() and _is_export(path)))
        for path in ours:
            if path not in written:
                remove(path)

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
            return file.read(len(max(_FIRST, key=len))).startswith(_FIRST)
    return False


def _holds_sessions(folder: Path) -> bool:
    """Tell whether this is a folder that an export of sessions wrote, with nothing else in it."""
    with suppress(OSError):
        if folder.is_symlink() or not folder.is_dir():
            return False
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        if found and all(map(_NUMBERED.fullmatch, found)):
            with open_regular(folder / min(found)) as file:
                return file.read(len(_SESSION)) == _SESSION
    return False

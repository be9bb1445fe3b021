"""Named files as a read-only file system for a DuckDB that may open no others."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from fsspec import AbstractFileSystem

from stepsearch_data.core.files import open_regular

SCHEME = "store"


class NamedFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """Opens files by the given names, `store://…`. It has no folders, no patterns and no way to write."""

    protocol = SCHEME
    cachable = False  # fsspec would give the next store the files of this one

    def __init__(self, files: Mapping[str, Path]) -> None:
        super().__init__()
        self._files = files

    def glob(self, path: str, **_options: Any) -> list[str]:
        """Return the file of exactly this name, if there is one."""
        return [path] if path in self._files else []

    def isfile(self, path: str) -> bool:
        """Tell whether there is a file of this name."""
        return path in self._files

    def size(self, path: str) -> int:
        """Return the bytes of a file."""
        return self._files[path].stat().st_size

    def modified(self, path: str) -> datetime:
        """Return when a file was last written."""
        return datetime.fromtimestamp(self._files[path].stat().st_mtime, UTC)

    def open(self, path: str, mode: str = "rb", **_options: Any) -> NamedFile:
        """Open a file to read. Raises PermissionError for anything else."""
        if mode != "rb" or path not in self._files:
            raise PermissionError(f"{path} is not open to mode {mode}")
        return NamedFile(open_regular(self._files[path]))


class NamedFile:
    """An open file. DuckDB's threads seek and read it at the same time, so each thread has its own position."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = threading.local()

    def seek(self, offset: int) -> None:
        """Go to a position."""
        self._position.at = offset

    def tell(self) -> int:
        """Return the position."""
        return getattr(self._position, "at", 0)

    def read(self, size: int) -> bytes:
        """Read `size` bytes from the position, fewer at the end."""
        at = self.tell()
        data = os.pread(self._file.fileno(), size, at)
        self._position.at = at + len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    __del__ = close  # DuckDB does not always close what it has opened

"""Corpora in files: Search-R1's JSONL and Parquet, DPR's tab-separated passages, read a row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from stepsearch_data.core.errors import RowRejected, SearchError, SourceError
from stepsearch_data.core.files import digest_of
from stepsearch_data.search.documents import Document
from stepsearch_data.sources.files import Broken, rows
from stepsearch_data.sources.passages import identity_of, title_and_text
from stepsearch_data.sources.tabular import parquet_rows, tsv_rows

_FORMATS = "a .jsonl with {id, contents} or {id, title, text}, such a .parquet, or DPR's .tsv (id, text, title)"

Reject = Callable[[int, str], None]
"""Takes the position of a row, from 1, and what is wrong with it."""


@dataclass(frozen=True)
class FileCorpus:
    """A file of passages. Raises SearchError where there is no such file, or it has another format."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise SearchError(f"there is no corpus {self.path}", f"it is {_FORMATS}")
        if self._format not in {".jsonl", ".json", ".parquet", ".tsv"}:
            raise SearchError(f"{self.path} is not a corpus", f"it is {_FORMATS}")

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self.path.name

    @property
    def stamp(self) -> list[int]:
        """Return the size and time of the last change: while they are the same, so is the file."""
        stat = self.path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the file's bytes."""
        return digest_of(self.path)

    @property
    def _format(self) -> str:
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        return next((s for s in reversed(suffixes) if s not in {".gz", ".bz2", ".zst"}), "")

    def documents(self, reject: Reject) -> Iterator[Document]:
        """Yield the passages in their order; other rows go to `reject`. Raises SearchError."""
        try:
            for position, row in enumerate(self._rows(), start=1):
                if row == b"":
                    continue
                try:
                    yield _passage(row, position)
                except RowRejected as reason:
                    reject(position, str(reason))
        except (SourceError, pa.ArrowException, OSError) as error:
            raise SearchError(f"cannot read the corpus {self.path}: {error}", f"it is {_FORMATS}") from error

    def _rows(self) -> Iterator[dict[str, Any] | bytes | Broken]:
        readers: dict[str, Callable[[Path], Iterator[Any]]] = {".parquet": parquet_rows, ".tsv": tsv_rows}
        return readers.get(self._format, rows)(self.path)


def _passage(row: dict[str, Any] | bytes | Broken, position: int) -> Document:
    """Read a passage from a row of any of the formats; one without an id is numbered. Raises RowRejected."""
    if isinstance(row, Broken):
        raise RowRejected(row.reason)
    try:
        fields = orjson.loads(row) if isinstance(row, bytes) else row
    except orjson.JSONDecodeError as error:
        raise RowRejected(f"Invalid JSON: {error}") from None
    title, text = title_and_text(fields)
    identity = identity_of(fields)
    return Document(str(position - 1) if identity is None else identity, title, text)

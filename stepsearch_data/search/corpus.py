"""Corpora in files: Search-R1's JSONL and Parquet, DPR's tab-separated passages, read a row at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from stepsearch_data.core.errors import RowRejected, SearchError, SourceError
from stepsearch_data.core.files import digest_of
from stepsearch_data.search.documents import Document
from stepsearch_data.sources.files import LONGEST_ROW, Broken, open_stream, rows
from stepsearch_data.sources.tabular import parquet_rows

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
            yield from self._tsv(reject) if self._format == ".tsv" else self._rows(reject)
        except (SourceError, pa.ArrowException, OSError) as error:
            raise SearchError(f"cannot read the corpus {self.path}: {error}", f"it is {_FORMATS}") from error

    def _rows(self, reject: Reject) -> Iterator[Document]:
        found = parquet_rows(self.path) if self._format == ".parquet" else rows(self.path)
        for position, row in enumerate(found, start=1):
            try:
                if isinstance(row, Broken):
                    reject(position, row.reason)
                elif row != b"":
                    yield _document(orjson.loads(row) if isinstance(row, bytes) else row, position)
            except orjson.JSONDecodeError as error:
                reject(position, f"Invalid JSON: {error}")
            except RowRejected as reason:
                reject(position, str(reason))

    def _tsv(self, reject: Reject) -> Iterator[Document]:
        with open_stream(self.path) as stream, io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
            csv.field_size_limit(LONGEST_ROW)  # for the whole process
            lines = csv.reader(text, delimiter="\t")
            try:
                first = next(lines, ["id"])
                body = lines if first[:1] == ["id"] else chain([first], lines)
                for position, row in enumerate(body, start=1):
                    if len(row) == len(Document._fields):
                        yield Document(row[0], row[2], row[1])
                    else:
                        reject(position, f"{len(row)} columns instead of id, text, title")
            except (csv.Error, UnicodeDecodeError, EOFError) as error:
                raise SearchError(
                    f"{self.path} is not a tab-separated file: {error}", f"a corpus is {_FORMATS}"
                ) from error


def _document(row: Any, position: int) -> Document:
    """Read a passage from a row of any of the formats. Raises RowRejected."""
    if not isinstance(row, dict):
        raise RowRejected("the row is not a JSON object")
    identity = row.get("id", row.get("_id"))
    title, text = row.get("title"), row.get("text", row.get("content"))
    if text is None and isinstance(row.get("contents"), str):
        title, text = split_contents(row["contents"])
    if not isinstance(text, str):
        raise RowRejected("it has neither `contents` nor `text`")
    if not isinstance(title, str | None):
        raise RowRejected("its title is not a text")
    if not isinstance(identity, str | int | None):
        raise RowRejected("its id is neither a text nor a whole number")
    return Document(str(position - 1) if identity is None else str(identity), title or "", text)


def split_contents(contents: str) -> tuple[str, str]:
    """Split Search-R1's `contents` into title and text: a first line of `"Title"`, then the text."""
    first, newline, rest = contents.partition("\n")
    if not newline:
        return "", contents
    title = first.strip()
    return title[1:-1] if len(title) > 1 and title[0] == title[-1] == '"' else title, rest


def join_contents(title: str, text: str) -> str:
    """Join a title and a text: the opposite of `split_contents`."""
    return f'"{title}"\n{text}' if title or "\n" in text else text

"""The documents of an index: an Arrow file, mapped into memory, so that twenty million cost no memory of ours."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, count, islice, pairwise
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from stepsearch_data.core.errors import SearchError
from stepsearch_data.core.files import open_regular

FILE = "documents.arrow"
_ROWS = 10_000  # per record batch
_FORGET = 2_000  # documents read, each of which maps 64 KiB, before all of them are released
_SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])


class Document(NamedTuple):
    """A passage of a corpus."""

    id: str
    title: str
    text: str


def write_documents(documents: Iterable[Document], folder: Path) -> int:
    """Write documents in their order; return their number."""
    written = 0
    rows = iter(documents)
    with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as file:
        while batch := list(islice(rows, _ROWS)):
            columns = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
            file.write_batch(pa.record_batch(columns, schema=_SCHEMA))
            written += len(batch)
    return written


class Documents(Sequence[Document]):
    """Documents by their number, from 0. Reading one touches only its pages."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / FILE)
        try:
            with open_regular(Path(self._path)) as file:
                self._map = mmap(file.fileno(), 0, access=ACCESS_READ)
            self._file = pa.ipc.open_file(pa.py_buffer(self._map))
            self._batches = [self._file.get_batch(at) for at in range(self._file.num_record_batches)]
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SearchError(f"{folder} holds no documents: {error}", "build the index again") from error
        if not self._file.schema.equals(_SCHEMA):
            raise self._damage("its columns are not id, title, text")
        self._starts = [0, *accumulate(batch.num_rows for batch in self._batches)]
        self._read = count(1)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        if next(self._read) % _FORGET == 0:
            self._map.madvise(MADV_DONTNEED)  # the kernel may keep the pages, but they are no memory of this process
        at = bisect_right(self._starts, number) - 1
        row = number - self._starts[at]
        return Document(*(self._texts(column.slice(row, 1))[0] for column in self._batches[at].columns))

    def __iter__(self) -> Iterator[Document]:
        return self.between(0, len(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Documents, (Path(self._path).parent,)

    def between(self, first: int, end: int) -> Iterator[Document]:
        """Yield the documents from `first` on, before `end`."""
        with pa.OSFile(self._path) as source:  # read, not mapped: reading all of it keeps none of it in memory
            file = pa.ipc.open_file(source)
            for at, (start, stop) in enumerate(pairwise(self._starts)):
                if first < stop and start < end:
                    rows = file.get_batch(at).slice(max(0, first - start), min(stop, end) - max(start, first))
                    yield from map(Document, *(self._texts(column) for column in rows.columns))

    def ids(self) -> pa.ChunkedArray:
        """Return the ids of all documents, checked, without a copy. Raises SearchError where they are damaged."""
        columns = [batch.column(0) for batch in self._batches]
        for column in columns:
            self._check(column)
        return pa.chunked_array(columns, pa.string())

    def texts(self, title_weight: int, first: int = 0, end: int | None = None) -> Iterator[str]:
        """Yield what is indexed of each document: its title `title_weight` times, then its text."""
        documents = self.between(first, len(self) if end is None else end)
        return (f"{document.title}\n" * title_weight + document.text for document in documents)

    def _texts(self, column: Any) -> list[str]:
        self._check(column)
        return column.to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types

    def _check(self, column: Any) -> None:
        """Raise SearchError where a column's offsets lead elsewhere: Arrow alone would follow them."""
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise self._damage(str(error).partition("\n")[0]) from error
        if column.null_count:
            raise self._damage("it lacks texts")

    def _damage(self, reason: str) -> SearchError:
        return SearchError(f"{self._path} is damaged: {reason}", "build the index again")

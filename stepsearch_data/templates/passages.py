"""The texts of the corpus by their ids, in files that all processes of a build share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stepsearch_data.core.arrow import gather
from stepsearch_data.core.lazy import Lazy
from stepsearch_data.schemas.rows import Hit, RetrievedDocument, Round
from stepsearch_data.templates.examples import Paragraph, Search, Step

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")

_ROWS = 10_000  # per record batch
_TEXTS, _IDS, _PLACES = "texts.arrow", "ids.npy", "places.npy"
_SCHEMA = pa.schema([("title", pa.string()), ("text", pa.string())])


class _Mapped(NamedTuple):
    """The files: all ids, ascending, the place of each in `texts`, and these."""

    ids: NDArray[np.bytes_]
    places: NDArray[np.int64]
    texts: pa.Table


class Passages:
    """Titles and texts by passage id; they turn rows into what templates write out.

    The Parquet file `path` is copied into files that are mapped into memory, when the first text is asked for: a
    process holds no text, and all that map the same files share what the system keeps of them. The files are in
    `folder`, which workers on other nodes need to see too. Without one they have no name, and each process its own.
    """

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self._path, self._folder = path.absolute(), folder and folder.absolute()

    def __reduce__(self) -> tuple[type[Passages], tuple[Path, Path | None]]:
        if self._folder:
            assert self._mapped  # written before it is sent
        return Passages, (self._path, self._folder)

    @cached_property
    def _mapped(self) -> _Mapped:
        if self._folder and self._folder.is_dir():  # of a store at a URL, only the build's own machine has it
            if not (self._folder / _PLACES).exists():
                _write(self._path, self._folder)
            return _map(self._folder)
        with tempfile.TemporaryDirectory() as folder:  # what is mapped outlives its name
            _write(self._path, Path(folder))
            return _map(Path(folder))

    def __contains__(self, passage_id: str) -> bool:
        return _find(self._mapped.ids, passage_id) is not None

    def __getitem__(self, passage_id: str) -> Paragraph:
        title, text = self._mapped.texts.columns
        place = self._place(passage_id)
        return Paragraph(title[place].as_py(), text[place].as_py())

    def texts(self, passage_ids: pl.Series) -> pl.DataFrame:
        """Return `passage_id`, `title` and `text` of many passages at once. Raises KeyError."""
        places = np.array([self._place(passage_id) for passage_id in passage_ids], np.int64)
        return pl.DataFrame(gather(self._mapped.texts, places)).insert_column(0, passage_ids.alias("passage_id"))

    def _place(self, passage_id: str) -> int:
        mapped = self._mapped
        found = _find(mapped.ids, passage_id)
        if found is None:
            raise KeyError(passage_id)
        return int(mapped.places[found])

    def shown(self, document: RetrievedDocument | Hit) -> Paragraph:
        """Return the title and text of a document: of a passage of the corpus, or from elsewhere."""
        if document.passage_id is not None:
            return self[document.passage_id]
        return Paragraph(document.title or "", document.text or "")

    def search(self, query: str, documents: Iterable[RetrievedDocument | Hit], *, good: bool = False) -> Search:
        """Return a query and the documents that it showed."""
        return Search(query, tuple(map(self.shown, documents)), good)

    def step(self, step: Round, gold: tuple[Paragraph, ...] = (), rejected: tuple[Search, ...] = ()) -> Step:
        """Return a round with its texts."""
        return Step(
            hop=step.hop,
            role=step.role,
            sub_question=step.sub_question,
            found=step.sub_answer,
            search=self.search(step.query, step.documents, good=step.kept and step.gold_rank is not None),
            keys=(step.query, *step.alternatives),
            gold=gold,
            rejected=rejected,
        )


def _find(ids: NDArray[np.bytes_], passage_id: str) -> Any:
    wanted = passage_id.encode()
    found = ids.searchsorted(wanted)
    return found if found < len(ids) and ids[found] == wanted else None


def _write(path: Path, folder: Path) -> None:
    ids = [np.empty(0, np.bytes_)]
    sink = pa.OSFile(str(folder / _TEXTS), "wb")
    with pq.ParquetFile(path) as file, sink, pa.ipc.new_file(sink, _SCHEMA) as texts:
        for batch in file.iter_batches(_ROWS, columns=["passage_id", *_SCHEMA.names]):
            named, *columns = (batch.column(name) for name in ("passage_id", *_SCHEMA.names))
            ids.append(np.array([passage_id.encode() for passage_id in named.to_pylist()]))
            texts.write_batch(pa.record_batch(columns, schema=_SCHEMA))
    whole = np.concatenate(ids)
    places = np.argsort(whole, kind="stable")
    np.save(folder / _IDS, whole[places])
    np.save(folder / f"new-{_PLACES}", places)
    (folder / f"new-{_PLACES}").rename(folder / _PLACES)  # last, so that the others are whole where it is


def _map(folder: Path) -> _Mapped:
    ids, places = (np.asarray(np.load(folder / name, mmap_mode="r")) for name in (_IDS, _PLACES))
    with pa.ipc.open_file(pa.memory_map(str(folder / _TEXTS))) as file:
        return _Mapped(ids, places, file.read_all())

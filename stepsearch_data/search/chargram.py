"""Character n-grams, weighted by TF-IDF and compared by cosine: a second engine that needs no model.

It is scikit-learn's TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True) on passages; a query's
grams count as often as they occur. It finds other spellings and inflections, which an engine of words does not.

On 280 sub-questions of MuSiQue among 4,041 real paragraphs the gold one comes first for 54 %, and among the first ten
for 91 %; without the logarithm of `sublinear_tf` it is 50 and 90 %, and with all of the common grams 55 and 91 %.

Memory: building takes what a chunk of passages and a block of postings take, and the grams themselves; searching maps
the arrays. Disk: about 5 kB per passage of 100 words, and half as much again while it is built.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from stepsearch_data.core.errors import SearchError
from stepsearch_data.core.progress import Meter
from stepsearch_data.core.text import tokens
from stepsearch_data.search.arrays import REBUILD, Arrays, reading
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.grams import count_grams, grams, words_of
from stepsearch_data.search.kinds import Engine, Kind, TextConfig, local_opener, no_words
from stepsearch_data.search.postings import Array, Postings, Weigh, find, merge
from stepsearch_data.search.sparse import SparseIndex, prepare

_CHUNK = 4_096  # passages whose grams are counted at once
_COMMON_FROM = 1_000  # passages; in a smaller corpus no gram is too common


class ChargramConfig(TextConfig):
    """Which grams are indexed."""

    max_df: float = Field(
        default=0.2, gt=0, le=1, description="share of the passages above which a gram is too common to be indexed"
    )


class _Vocabulary(NamedTuple):
    """The grams that count, ascending, and in how many of all documents each occurs."""

    keys: Array
    frequencies: Array
    documents: int

    def idf(self) -> Array:
        return _idf(self.frequencies, self.documents)


def build(engine: Engine, documents: Documents, folder: Path, meter: Meter) -> None:
    """Write the arrays of an index to an empty folder. Raises SearchError for a corpus without a single gram."""
    config: ChargramConfig = engine.config
    aside = folder / "chunks"
    aside.mkdir()
    texts = documents.texts(config.title_weight)
    chunks: list[Path] = []
    while chunk := list(islice(texts, _CHUNK)):
        chunks.append(aside / str(len(chunks)))
        count_grams(chunk).save(chunks[-1])
        meter.advance(len(chunk))
    vocabulary = _vocabulary(chunks, len(documents), config.max_df)
    if not len(vocabulary.keys):
        raise no_words()
    np.save(folder / "keys.npy", vocabulary.keys)
    np.save(folder / "indptr.npy", np.concatenate([[0], np.cumsum(vocabulary.frequencies)]))
    weigh = _weigh(vocabulary, _norms(chunks, vocabulary))
    files = folder / "indices.npy", folder / "data.npy"
    merge(chunks, _CHUNK, vocabulary.keys, vocabulary.frequencies, weigh, *files)
    shutil.rmtree(aside)
    prepare(len(documents), meter)


def _vocabulary(chunks: Sequence[Path], documents: int, max_df: float) -> _Vocabulary:
    keys = np.empty(0, np.uint64)
    for chunk in chunks:
        keys = np.union1d(keys, Postings.load(chunk).keys)
    frequencies = np.zeros(len(keys), np.int64)
    for chunk in chunks:
        postings = Postings.load(chunk)
        frequencies[np.searchsorted(keys, postings.keys)] += postings.lengths
    most = max_df * documents if documents >= _COMMON_FROM else documents
    return _Vocabulary(keys[frequencies <= most], frequencies[frequencies <= most], documents)


def _norms(chunks: Sequence[Path], vocabulary: _Vocabulary) -> Array:
    """Return the length of each document's vector; 1 where it has none."""
    idf, norms = vocabulary.idf(), []
    for at, chunk in enumerate(chunks):
        places, postings = Postings.load(chunk).among(vocabulary.keys)
        weights = _tf(postings.counts) * np.repeat(idf[places], postings.lengths)
        size = min(_CHUNK, vocabulary.documents - at * _CHUNK)
        norms.append(np.sqrt(np.bincount(postings.documents, weights**2, size)))
    lengths = np.concatenate(norms)
    return np.where(lengths > 0, lengths, 1.0)


def _weigh(vocabulary: _Vocabulary, norms: Array) -> Weigh:
    twice = vocabulary.idf() ** 2  # query and document have the same idf: both factors are in here

    def weigh(places: Array, documents: Array, counts: Array) -> Any:
        return _tf(counts) * twice[places] / norms[documents]

    return weigh


def _tf(counts: Array) -> Array:
    return np.log(counts, dtype=np.float64) + 1


def _idf(frequencies: Array, documents: int) -> Array:
    return np.log((1 + documents) / (1 + frequencies)) + 1


class Chargram(SparseIndex):
    """A built index of so many documents."""

    def __init__(self, folder: Path, documents: int, workers: int = 1) -> None:
        with reading(folder, "chargram"):
            names = ("keys", "indptr", "indices", "data")
            keys, *arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
        self._keys = np.asarray(keys)
        super().__init__(Arrays(folder, arrays, documents, positive=True), workers)
        shape = (len(self._arrays),)
        if keys.dtype != np.uint64 or keys.shape != shape or np.any(self._keys[1:] <= self._keys[:-1]):
            raise SearchError(f"the index {folder} is damaged: its grams are not in order", REBUILD)

    def words_of(self, query: str) -> tuple[list[int], float]:
        """See `SparseIndex.words_of`."""
        if not tokens(query):
            return [], 1.0
        places, known = find(self._keys, grams(words_of(query))[0])
        distinct, counts = np.unique(places[known], return_counts=True)
        starts = self._arrays.starts
        idf = _idf(starts[distinct + 1] - starts[distinct], self.size)
        return places[known].tolist(), float(np.sqrt(((counts * idf) ** 2).sum()))


CHARGRAM = Kind(
    name="chargram",
    doc="character 3- to 5-grams, by TF-IDF: finds other spellings and inflections",
    config=ChargramConfig,
    build=build,
    open=local_opener(lambda _engine, folder, documents, service: Chargram(folder, len(documents), service.workers)),
    version=2,
)

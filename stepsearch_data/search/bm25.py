"""BM25 by `bm25s`: an index is a folder of arrays, memory-mapped when searched."""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from pydantic import Field

from stepsearch_data.core.progress import Meter
from stepsearch_data.core.text import tokens
from stepsearch_data.search.arrays import Arrays, reading
from stepsearch_data.search.bm25_parts import ARRAYS, build_parts
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.engine import Index
from stepsearch_data.search.kinds import Engine, Kind, Service, TextConfig, local_opener, no_words
from stepsearch_data.search.parts import PartsIndex, PartsSettings, read_parts
from stepsearch_data.search.postings import Array, Postings, merge
from stepsearch_data.search.sparse import SparseIndex, prepare

_CHUNK = 16_384  # passages whose words are counted at once


class Bm25Config(TextConfig):
    """BM25's parameters; Lucene's defaults."""

    k1: float = Field(default=1.2, gt=0, le=1_000, description="how much repeated words add: the higher, the more")
    b: float = Field(
        default=0.75, ge=0, le=1, description="how much long passages are penalised: 0 not at all, 1 fully"
    )
    variant: Literal["lucene", "robertson", "atire"] = Field(
        default="lucene", description="formula of bm25s; `atire` with Robertson's idf is what rank-bm25 calls Okapi"
    )


def build(engine: Engine, documents: Documents, folder: Path, meter: Meter) -> None:
    """Write a BM25 index to an empty folder: what bm25s would write, whose own way holds all of it several times.

    Raises SearchError for a corpus without a single word.
    """
    if engine.settings.parts > 1:
        build_parts(engine, documents, folder, meter)
        return
    config: Bm25Config = engine.config
    aside = folder / "chunks"
    aside.mkdir()
    vocabulary: dict[str, int] = {}
    chunks: list[Path] = []
    lengths = [np.empty(0, np.int64)]
    texts = documents.texts(config.title_weight)
    while chunk := list(islice(texts, _CHUNK)):
        chunks.append(aside / str(len(chunks)))
        lengths.append(_count(chunk, vocabulary, chunks[-1]))
        meter.advance(len(chunk))
    if not vocabulary:
        raise no_words()
    frequencies = np.zeros(len(vocabulary), np.int64)
    for path in chunks:
        postings = Postings.load(path)
        frequencies[postings.keys] += postings.lengths
    scores = _Scores(config, frequencies, np.concatenate(lengths))
    indptr, *files = (folder / name for name in ARRAYS)
    scores.save(folder, vocabulary)
    np.save(indptr, np.concatenate([[0], np.cumsum(frequencies)]))
    merge(chunks, _CHUNK, np.arange(len(vocabulary)), frequencies, scores.weigh, *files)
    shutil.rmtree(aside)
    prepare(len(documents), meter)


def _count(texts: Sequence[str], vocabulary: dict[str, int], folder: Path) -> Array:
    """Write the postings of a chunk of texts, and add their words to the vocabulary. Return the length of each."""
    words = [array("i", [vocabulary.setdefault(token, len(vocabulary)) for token in tokens(text)]) for text in texts]
    lengths = np.fromiter(map(len, words), np.int64)
    keys, terms = np.unique(np.concatenate([np.empty(0, np.int32), *words]), return_inverse=True)
    Postings.counted(keys, terms, np.repeat(np.arange(len(texts)), lengths), len(texts)).save(folder)
    return lengths


class _Scores:
    """The weights of words in documents, by bm25s."""

    def __init__(self, config: Bm25Config, frequencies: Array, lengths: Array) -> None:
        from bm25s import BM25, scoring

        idf = "robertson" if config.variant == "atire" else config.variant
        self._index = BM25(method=config.variant, idf_method=idf, k1=config.k1, b=config.b)
        score = scoring._select_idf_scorer(idf)  # noqa: SLF001 - the formulas are its own
        self._idf = np.array([score(frequency, N=len(lengths)) for frequency in frequencies.tolist()], np.float32)
        self._tfc = scoring._select_tfc_scorer(config.variant)  # noqa: SLF001
        self._lengths, self._average = lengths, lengths.mean()

    def weigh(self, words: Array, documents: Array, counts: Array) -> Any:
        """See `Weigh`."""
        of = self._index
        shape = {"l_d": self._lengths[documents], "l_avg": self._average, "k1": of.k1, "b": of.b, "delta": of.delta}
        return self._idf[words] * self._tfc(tf_array=counts.astype(np.float32), **shape)

    def save(self, folder: Path, vocabulary: dict[str, int]) -> None:
        """Write the vocabulary and the settings; the arrays are empty."""
        none = np.empty(0)
        self._index.scores = {"data": none, "indices": none, "indptr": none, "num_docs": len(self._lengths)}
        self._index.vocab_dict, self._index.nonoccurrence_array = vocabulary, None
        self._index.save(folder, show_progress=False)


class Bm25(SparseIndex):
    """A built index, as bm25s has written it."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        with reading(folder, "BM25"):
            arrays = [np.load(folder / name, mmap_mode="r") for name in ARRAYS]
            params = orjson.loads((folder / "params.index.json").read_bytes())
            size, method = int(params["num_docs"]), params["method"]
            self._number = orjson.loads((folder / "vocab.index.json").read_bytes()).get
        super().__init__(Arrays(folder, arrays, size, positive=method == "lucene"), workers)

    def words_of(self, query: str) -> tuple[list[int], float]:
        """See `SparseIndex.words_of`."""
        return [number for word in tokens(query) if (number := self._number(word)) is not None], 1.0


def _open(engine: Engine, folder: Path, _documents: Documents, service: Service) -> Index:
    sizes = read_parts(folder, "BM25")
    if sizes is None:
        return Bm25(folder, service.workers)
    openers = [partial(Bm25, folder / str(number)) for number in range(len(sizes))]
    return PartsIndex(openers, sizes, engine.executor)


BM25 = Kind(
    name="bm25",
    doc="words, by bm25s: arrays mapped into memory",
    config=Bm25Config,
    settings=PartsSettings,
    build=build,
    open=local_opener(_open),
    version=2,
)

"""BM25 by `bm25s`: an index is a folder of arrays, memory-mapped when searched."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
from pydantic import Field

from stepsearch_data.core.progress import Meter
from stepsearch_data.core.text import tokens
from stepsearch_data.search.arrays import Arrays, reading
from stepsearch_data.search.bm25_parts import (
    ARRAYS,
    Scores,
    Whole,
    build_parts,
    count_words,
    remove_counted,
    write_weights,
)
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.engine import Index
from stepsearch_data.search.kinds import Engine, Kind, Service, TextConfig, local_opener, no_words
from stepsearch_data.search.parts import PartsIndex, PartsSettings, read_parts
from stepsearch_data.search.sparse import SparseIndex, prepare


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
    vocabulary, frequencies, lengths = count_words(documents.texts(engine.config.title_weight), folder, meter.advance)
    if not vocabulary:
        raise no_words()
    scores = Scores(engine.config, frequencies, lengths, Whole(len(documents), lengths.mean()))
    index, none = scores.index, np.empty(0)  # it writes the vocabulary and the settings; its arrays are empty
    index.scores = {"data": none, "indices": none, "indptr": none, "num_docs": len(documents)}
    index.vocab_dict, index.nonoccurrence_array = vocabulary, None
    index.save(folder, show_progress=False)
    write_weights(scores, frequencies, folder)
    remove_counted(folder)
    prepare(len(documents), meter)


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

"""BM25 by `bm25s`: an index is a folder of arrays, memory-mapped when searched."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field

from stepsearch_data.core.progress import Meter
from stepsearch_data.core.text import tokens
from stepsearch_data.search.arrays import Arrays, reading
from stepsearch_data.search.compiled import best, speed_up
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.kinds import Engine, Kind, TextConfig, local_opener, no_words

_NUMBERS = {"dtype": "float32", "int_dtype": "int32", "backend": "numpy"}  # bm25s's own, whatever a file says
_PART = 64  # queries that a thread takes at a time, at most


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
    """Write a BM25 index to an empty folder. Raises SearchError for a corpus without a single word."""
    import bm25s
    from bm25s.tokenization import Tokenized

    config: Bm25Config = engine.config
    vocabulary: dict[str, int] = {}
    words = []
    for text in documents.texts(config.title_weight):
        words.append(array("i", [vocabulary.setdefault(token, len(vocabulary)) for token in tokens(text)]))
        meter.advance()
    if not vocabulary:
        raise no_words()
    idf = "robertson" if config.variant == "atire" else config.variant
    index = bm25s.BM25(method=config.variant, idf_method=idf, k1=config.k1, b=config.b)
    index.index(Tokenized(ids=words, vocab=vocabulary), create_empty_token=False, show_progress=False)
    index.save(folder, show_progress=False)
    Bm25(folder).find([next(iter(vocabulary))], 1)  # compiles: a server that starts later need not


class Bm25:
    """A built index, searched by `workers` threads."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        import bm25s

        with reading(folder, "BM25"):
            self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False, **_NUMBERS)
            self.size = int(self._index.scores["num_docs"])
            self._vocabulary = dict[str, int](self._index.vocab_dict)
        self._arrays = Arrays(folder, self._index.scores, positive=self._index.method == "lucene")
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers)
        self._index.unique_token_ids_set = range(len(self._vocabulary))  # the same as the set, in no memory
        speed_up(self._index, self._index.scores["num_docs"])

    def find(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """See `Index.find`."""
        words = [[self._vocabulary[t] for t in tokens(query) if t in self._vocabulary] for query in queries]
        self._arrays.check([word for ids in words for word in ids])
        asked = [at for at, ids in enumerate(words) if ids]
        results: list[list[tuple[int, float]]] = [[] for _ in queries]
        size = min(_PART, -(-len(asked) // self._workers)) or 1
        parts = [asked[start : start + size] for start in range(0, len(asked), size)]
        found = self._threads.map(lambda part: best(self._index, [words[at] for at in part], k), parts)
        for at, result in zip(asked, chain.from_iterable(found), strict=True):
            results[at] = result
        return results


BM25 = Kind(
    name="bm25",
    doc="words, by bm25s: arrays mapped into memory",
    config=Bm25Config,
    build=build,
    open=local_opener(lambda _engine, folder, _documents, service: Bm25(folder, service.workers)),
    version=2,
)

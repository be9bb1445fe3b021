"""BM25 by `rank-bm25`: slow and simple, for small corpora and as a check on the fast engines.

It is the library's Okapi: a word of more than half of the passages weighs `epsilon` times the mean weight of all words.
The words are counted when the engine opens; scores are computed for each query.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from stepsearch_data.core.errors import SearchError
from stepsearch_data.core.progress import Meter
from stepsearch_data.core.text import tokens
from stepsearch_data.search.arrays import REBUILD
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.kinds import Engine, Kind, Service, TextConfig, local_opener, no_words

_MOST = 50_000  # passages, with which a query takes half a second
_MARK = "passages"


class RankBm25Config(TextConfig):
    """BM25's parameters; the library's defaults."""

    k1: float = Field(default=1.5, gt=0, le=1_000, description="how much repeated words add: the higher, the more")
    b: float = Field(
        default=0.75, ge=0, le=1, description="how much long passages are penalised: 0 not at all, 1 fully"
    )
    epsilon: float = Field(
        default=0.25,
        ge=0,
        le=1_000,
        description="weight of words in over half of the passages, relative to the mean",
    )


def build(engine: Engine, documents: Documents, folder: Path, meter: Meter) -> None:
    """Check the corpus: there is nothing to keep but its size. Raises SearchError where it is too large or empty."""
    if len(documents) > _MOST:
        raise SearchError(
            f"rank-bm25 is for {_MOST:,} passages at most, and the corpus holds {len(documents):,}",
            "choose --engine bm25: it ranks alike, and is hundreds of times faster",
        )
    words = 0
    for text in documents.texts(engine.config.title_weight):
        words += len(tokens(text))
        meter.advance()
    if not words:
        raise no_words()
    (folder / _MARK).write_text(f"{len(documents)}\n")


class RankBm25:
    """The library's index, made of all documents when it opens."""

    def __init__(self, documents: Documents, config: RankBm25Config) -> None:
        from rank_bm25 import BM25Okapi

        words = [tokens(text) for text in documents.texts(config.title_weight)]
        self.size = len(words)
        self._okapi = BM25Okapi(words, k1=config.k1, b=config.b, epsilon=config.epsilon)

    def find(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """See `Index.find`."""
        return [self._best(tokens(query), k) for query in queries]

    def _best(self, words: list[str], k: int) -> list[tuple[int, float]]:
        if not words:
            return []
        scores = self._okapi.get_scores(words)
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            (number, score) for number, score in zip(best.tolist(), scores[best].tolist(), strict=True) if score > 0
        ]


def _open(engine: Engine, folder: Path, documents: Documents, _service: Service) -> RankBm25:
    if not (folder / _MARK).is_file():
        raise SearchError(f"{folder} holds no rank-bm25 index", REBUILD)
    return RankBm25(documents, engine.config)


RANK_BM25 = Kind(
    name="rank-bm25",
    doc="words, by rank-bm25: slow, for small corpora and as a check",
    config=RankBm25Config,
    build=build,
    open=local_opener(_open),
)

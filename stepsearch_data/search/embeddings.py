"""Vectors of texts: how they are made, and where those of passages are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
import orjson
from numpy.typing import NDArray

from stepsearch_data.core.atomic import writing
from stepsearch_data.core.errors import SearchError
from stepsearch_data.llm.settings import default_replay
from stepsearch_data.search.kinds import need

_SHARD = 1_024  # passages, on average
_LARGEST_SHARD = 4 * _SHARD

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """A model of embeddings. Called from one thread at a time."""

    def embed(self, texts: Sequence[str]) -> list[Vectors | str]:
        """Return a vector for each text, or why it has none. Raises SearchError when there can be none at all."""

    def close(self) -> None:
        """Drop the connections."""


class LocalEmbedder:
    """A model that `sentence-transformers` loads. Raises SearchError where it cannot."""

    def __init__(self, model: str, batch: int) -> None:
        library = need("sentence_transformers", "dense-local")
        try:
            self._model = library.SentenceTransformer(model)
        except (OSError, ValueError) as error:
            raise SearchError(
                f"cannot load the model {model}: {' '.join(str(error).split())[:300]}",
                "name a model of the Hugging Face Hub",
            ) from error
        self._batch = batch

    def embed(self, texts: Sequence[str]) -> list[Vectors | str]:
        """See `Embedder`."""
        vectors = self._model.encode(list(texts), batch_size=self._batch, show_progress_bar=False)
        return list(checked(vectors, len(texts), "the model"))

    def close(self) -> None:
        """See `Embedder`."""


def checked(rows: Any, count: int, whose: str) -> Vectors:
    """Return vectors as one array, shape (count, dimensions). Raises SearchError where they are not that."""
    try:
        vectors = np.asarray(rows, np.float32)
    except (ValueError, TypeError):
        vectors = np.empty(0, np.float32)
    if len(rows) != count:
        raise SearchError(
            f"{whose} sent {len(rows)} vectors for {count} texts", "it does not serve embeddings as it should"
        )
    if vectors.ndim != 2 or not vectors.shape[1]:  # noqa: PLR2004
        raise SearchError(
            f"{whose} sent vectors of several lengths, or none", "it does not serve embeddings as it should"
        )
    if not np.isfinite(vectors).all():
        raise SearchError(f"{whose} sent vectors that are not finite", "choose another precision for the model")
    return vectors


def cut(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut texts into shards: whether one ends at a text depends on that text, so a new passage changes one shard."""
    shard: list[str] = []
    for text in texts:
        shard.append(text)
        if len(shard) == _LARGEST_SHARD or crc32(text.encode()) % _SHARD == 0:
            yield shard
            shard = []
    if shard:
        yield shard


def shard_of(embedder: Embedder, model: str, base_url: str, texts: list[str]) -> Path:
    """Return the file with the vectors of these texts, made where it is not there yet. Raises SearchError."""
    asked = orjson.dumps([model, base_url, texts])
    path = default_replay().parent / "embeddings" / f"{hashlib.sha256(asked).hexdigest()}.npy"
    if path.is_file():
        return path
    vectors: list[Vectors] = []
    for vector in embedder.embed(texts):
        if isinstance(vector, str):
            raise SearchError(f"a passage has no vector: {vector}", "run the same command: what was done is kept")
        vectors.append(vector)
    with np.errstate(over="ignore"):  # reported below
        halves = np.array(vectors).astype(np.float16)
    if not np.isfinite(halves).all():
        raise SearchError(f"the vectors of {model} are too large for 16 bits", "choose another model")
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path, shared=True) as part, open(part, "wb") as file:
        np.save(file, halves)
    return path

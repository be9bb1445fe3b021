"""Vectors of texts: how they are made, and where those of passages are kept."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
import orjson
from numpy.typing import NDArray

from stepsearch_data.core.atomic import writing
from stepsearch_data.core.errors import SearchError
from stepsearch_data.executors import Executor
from stepsearch_data.llm.settings import default_replay
from stepsearch_data.search.kinds import need

_SHARD = 1_024  # passages, on average
_LARGEST_SHARD = 4 * _SHARD

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """A model of embeddings. Called from one thread at a time."""

    def embed(self, texts: Sequence[str]) -> list[Vectors | str]:
        """Return a vector for each text, or why it has none. Raises SearchError when there can be none at all."""

    def embed_each(self, lists: Iterable[Sequence[str]]) -> Iterator[Sequence[Vectors | str]]:
        """Do the same for lists of texts, in their order. Lists are taken a bounded number ahead."""

    def close(self) -> None:
        """Drop the connections."""


class LocalEmbedder:
    """A model that `sentence-transformers` loads: in this process, or in workers of a cluster, each with its GPU."""

    def __init__(self, model: str, batch: int, executor: Executor) -> None:
        self._batch = batch
        self._copies = executor.copies(_Model(model, batch))

    def embed(self, texts: Sequence[str]) -> list[Vectors | str]:
        """See `Embedder`. Each batch is a list of its own, so that its vectors are the same wherever they are made."""
        batches = (texts[start : start + self._batch] for start in range(0, len(texts), self._batch))
        return list(chain.from_iterable(self.embed_each(batches)))

    def embed_each(self, lists: Iterable[Sequence[str]]) -> Iterator[Sequence[Vectors | str]]:
        """See `Embedder`."""
        return map(list, self._copies.map(lists))

    def close(self) -> None:
        """End the workers."""
        self._copies.close()


class _Model:
    """A model, loaded at the first call. Raises SearchError where it cannot be."""

    def __init__(self, name: str, batch: int) -> None:
        self._name, self._batch = name, batch

    @cached_property
    def _loaded(self) -> Any:
        library = need("sentence_transformers", "dense-local")
        try:
            return library.SentenceTransformer(self._name)
        except (OSError, ValueError) as error:
            raise SearchError(
                f"cannot load the model {self._name}: {' '.join(str(error).split())[:300]}",
                "name a model of the Hugging Face Hub",
            ) from error

    def __call__(self, texts: Sequence[str]) -> Vectors:
        vectors = self._loaded.encode(list(texts), batch_size=self._batch, show_progress_bar=False)
        return checked(vectors, len(texts), "the model")


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


def keep_vectors(
    embedder: Embedder, model: str, base_url: str, shards: Iterable[list[str]], done: Callable[[int], None]
) -> list[Path]:
    """Return the files with the vectors of each shard, made where they are not there yet. Raises SearchError.

    `done` is called with a number of texts that have vectors.
    """
    files: list[Path] = []
    new: deque[tuple[Path, int]] = deque()

    def missing() -> Iterator[list[str]]:
        for texts in shards:
            asked = orjson.dumps([model, base_url, texts])
            files.append(default_replay().parent / "embeddings" / f"{hashlib.sha256(asked).hexdigest()}.npy")
            if files[-1].is_file():
                done(len(texts))
            else:
                new.append((files[-1], len(texts)))
                yield texts

    for vectors in embedder.embed_each(missing()):
        path, texts = new.popleft()
        _write(path, vectors, model)
        done(texts)
    return files


def _write(path: Path, vectors: Sequence[Vectors | str], model: str) -> None:
    for vector in vectors:
        if isinstance(vector, str):
            raise SearchError(f"a passage has no vector: {vector}", "run the same command: what was done is kept")
    with np.errstate(over="ignore"):  # reported below
        halves = np.array(vectors).astype(np.float16)
    if not np.isfinite(halves).all():
        raise SearchError(f"the vectors of {model} are too large for 16 bits", "choose another model")
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path, shared=True) as part, open(part, "wb") as file:
        np.save(file, halves)

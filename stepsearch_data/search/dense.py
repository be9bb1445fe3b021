"""Embeddings of a model, by `faiss`: finds passages that say the same in other words.

Memory, and disk, for n passages of d dimensions: 4·n·d bytes as they are (up to 100,000 passages: 307 MB for the 768 of
E5-base), n·(d + 8) with a byte per dimension and lists (above: 776 MB for a million). Building takes that at once,
searching maps it. The vectors are also kept as they came, 2·n·d bytes, in the cache folder of this user: an interrupted
build requests again only the passages of its last shard, about a thousand.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import Field

from stepsearch_data.core.errors import SearchError
from stepsearch_data.core.progress import Meter
from stepsearch_data.core.text import tokens
from stepsearch_data.executors import INLINE
from stepsearch_data.remote.cache import Cache
from stepsearch_data.search.arrays import check_numbers, reading
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.embeddings import Embedder, LocalEmbedder, Vectors, cut, keep_vectors
from stepsearch_data.search.embeddings_http import RemoteEmbedder
from stepsearch_data.search.engine import Hits
from stepsearch_data.search.kinds import (
    Engine,
    EngineConfig,
    Kind,
    Service,
    local_opener,
    need,
    no_words,
)
from stepsearch_data.search.parts import PartsSettings, merged, ranges, read_parts, write_parts

_FILE = "vectors.faiss"
_FLAT = 100_000  # passages, up to which every vector is compared
_TRAINING = 40  # vectors per list that faiss trains on
_SPARE = 16  # documents requested beyond k, so that ties at the k-th place are in order


class DenseConfig(EngineConfig):
    """The model, its prefixes (E5's by default), and how its vectors are searched."""

    model: str = Field(min_length=1, description="name of an embedding model, on the Hub or on the server")
    query_prefix: str = Field(default="query: ", description="put before every query, as the model was trained")
    passage_prefix: str = Field(default="passage: ", description="put before every passage, as the model was trained")
    normalise: bool = Field(default=True, description="compare by cosine, not by inner product")
    factory: str = Field(
        default="auto",
        min_length=1,
        description="faiss's name of the index; auto: Flat up to 100,000 passages, above IVF{4·√n},SQ8",
    )
    nprobe: int = Field(default=16, ge=1, le=1_000_000, description="lists of an IVF index that are searched")


class DenseSettings(PartsSettings):
    """Where vectors come from; the key only from OPENAI_API_KEY."""

    base_url: str = Field(
        default="",
        description="an OpenAI-compatible server, such as http://localhost:8000/v1; by default the model"
        " runs in this process, or on the GPUs of a Ray cluster",
    )
    batch: int = Field(default=64, ge=1, le=100_000, description="texts per request")
    max_concurrency: int = Field(default=8, ge=1, le=10_000, description="requests in flight at most")
    timeout: float = Field(default=60.0, gt=0, le=86_400, description="seconds for one request")


def _embedder(engine: Engine) -> Embedder:
    settings: DenseSettings = engine.settings
    model = engine.config.model
    if not settings.base_url:
        return LocalEmbedder(model, settings.batch, engine.executor)
    limits = (settings.batch, settings.max_concurrency, settings.timeout)
    return RemoteEmbedder(engine.name, model, settings.base_url, *limits)


def build(engine: Engine, documents: Documents, folder: Path, meter: Meter) -> None:
    """Write an index to an empty folder. Raises SearchError for a corpus without a word, and where vectors fail."""
    faiss = need("faiss", "dense")
    config: DenseConfig = engine.config
    if not any(tokens(text) for text in documents.texts(1)):
        raise no_words()
    with closing(_embedder(engine)) as embedder:
        texts = cut(config.passage_prefix + text for text in documents.texts(1))
        shards = keep_vectors(embedder, config.model, engine.settings.base_url, texts, meter.advance)
    index = _empty(faiss, config, len(documents), np.load(shards[0]).shape[1])
    if not index.is_trained:
        lists = faiss.try_extract_index_ivf(index)
        index.train(_sample(shards, config, len(documents), lists.nlist if lists else 1))
    if engine.settings.parts == 1:
        for vectors in _vectors(shards, config, index.d):
            index.add(vectors)
        faiss.write_index(index, str(folder / _FILE))
    else:
        _write_parts(
            faiss, index, _vectors(shards, config, index.d), folder, ranges(len(documents), engine.settings.parts)
        )


def _vectors(shards: Sequence[Path], config: DenseConfig, dimensions: int) -> Iterator[Vectors]:
    """Yield the vectors of each shard. Raises SearchError where they have other dimensions."""
    for shard in shards:
        vectors = _read(shard, config)
        if vectors.shape[1] != dimensions:
            raise SearchError(
                f"{config.model} gave vectors of {dimensions:,} and of {vectors.shape[1]:,} dimensions",
                f"remove {shard.parent}: the vectors are requested again",
            )
        yield vectors


def _write_parts(
    faiss: Any, empty: Any, shards: Iterable[Vectors], folder: Path, parts: Sequence[tuple[int, int]]
) -> None:
    """Write parts, one in memory at a time. All have learned from all passages: so their answers are one index's."""
    part, number, place = faiss.clone_index(empty), 0, 0
    for shard in shards:
        vectors = shard
        while len(vectors):
            end = parts[number][1]
            part.add(vectors[: end - place])
            vectors, place = vectors[end - place :], min(end, place + len(vectors))
            if place == end:
                (folder / str(number)).mkdir()
                faiss.write_index(part, str(folder / str(number) / _FILE))
                part, number = faiss.clone_index(empty), number + 1
    write_parts(folder, parts)


def _read(shard: Path, config: DenseConfig) -> Vectors:
    return _scaled(np.load(shard).astype(np.float32), config)


def _scaled(vectors: Vectors, config: DenseConfig) -> Vectors:
    """Scale vectors to length 1 where cosines are asked for; a vector of zeros stays as it is."""
    if not config.normalise:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _empty(faiss: Any, config: DenseConfig, passages: int, dimensions: int) -> Any:
    lists = max(1, int(4 * math.sqrt(passages)))
    factory = ("Flat" if passages <= _FLAT else f"IVF{lists},SQ8") if config.factory == "auto" else config.factory
    try:
        return faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise SearchError(
            f"faiss knows no index {factory!r} of {dimensions:,} dimensions", "leave `factory` out, or try Flat"
        ) from error


def _sample(shards: Sequence[Path], config: DenseConfig, passages: int, lists: int) -> Vectors:
    """Return vectors from all parts of the corpus, as many as faiss needs to learn from."""
    step = max(1, passages // (_TRAINING * max(256, lists)))
    return np.concatenate([_read(shard, config)[::step] for shard in shards])


class _Part:
    """All passages, or a range, searched by threads, one query at a time: so an answer depends on nothing else."""

    def __init__(self, folder: Path, config: DenseConfig, workers: int) -> None:
        self._folder, self._config, self._workers = folder, config, workers

    @cached_property
    def index(self) -> Any:
        """Return faiss's index, mapped. Raises SearchError where it is damaged."""
        faiss = need("faiss", "dense")
        with reading(self._folder, "dense"):
            index = faiss.read_index(str(self._folder / _FILE), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
        lists = faiss.try_extract_index_ivf(index)
        if lists:
            lists.nprobe = self._config.nprobe
        self._threads = ThreadPoolExecutor(self._workers, initializer=lambda: faiss.omp_set_num_threads(1))
        return index

    def __call__(self, asked: tuple[Sequence[Vectors | str | None], int]) -> Hits:
        """Find so many passages for each vector; an error stays one, and None finds nothing."""
        vectors, k = asked
        assert self.index
        return Hits.of(list(self._threads.map(lambda vector: self._best(vector, k), vectors)))

    def _best(self, vector: Vectors | str | None, k: int) -> list[tuple[int, float]] | str:
        if vector is None or isinstance(vector, str):
            return vector or []
        most = min(k + _SPARE, self.index.ntotal)
        scores, numbers = self.index.search(_scaled(vector[np.newaxis], self._config), most)
        pairs = zip(numbers[0].tolist(), scores[0].tolist(), strict=True)
        found = [(number, score) for number, score in pairs if number >= 0 and score > 0]
        check_numbers([number for number, _ in found], self.index.ntotal)
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]


class Dense:
    """A built index, of one part or several: queries get their vectors here, and are searched for in all parts."""

    def __init__(self, folder: Path, engine: Engine, service: Service) -> None:
        self._config: DenseConfig = engine.config
        sizes = read_parts(folder, "dense")
        folders = [folder / str(number) for number in range(len(sizes))] if sizes else [folder]
        workers = service.workers if engine.executor is INLINE or not sizes else 1
        parts = [_Part(of_part, engine.config, workers) for of_part in folders]
        self._dimensions = int(parts[0].index.d)
        self._sizes = sizes or [int(parts[0].index.ntotal)]
        self.size = sum(self._sizes)
        self._parts = (engine.executor if sizes else INLINE).parts(
            [_Part(of_part, engine.config, workers) for of_part in folders] if sizes else parts
        )
        self._asked = [engine.config.model, engine.settings.base_url]
        self._replay = service.replay
        self._make: Callable[[], Embedder] = lambda: _embedder(engine)
        self._embedder: Embedder | None = None

    def find(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """See `Index.find`. Raises SearchError where a query has no vector."""
        hits = self.hits(queries, k)
        for error in hits.errors.values():
            raise SearchError(f"a query has no vector: {error}")
        return hits.pairs()

    def hits(self, queries: Sequence[str], k: int) -> Hits:
        """See `ArrayIndex.hits`. A query without a vector has an error."""
        queries = [query.encode("utf-8", "replace").decode() for query in queries]  # lone surrogates
        vectors = self._vectors([query for query in dict.fromkeys(queries) if tokens(query)])
        return merged(self._parts.ask(([vectors.get(query) for query in queries], k)), self._sizes, k)

    def close(self) -> None:
        """Drop the connections, and end the workers."""
        self._parts.close()
        embedder, self._embedder = self._embedder, None
        if embedder:
            embedder.close()

    def _vectors(self, queries: list[str]) -> dict[str, Vectors | str]:
        """Return a vector for each query, from the cache or the model."""
        if not self._replay:
            return dict(zip(queries, self._embed(queries), strict=True))
        with closing(Cache(self._replay)) as cache:  # opened here: a connection stays within its thread
            kept = {query: cache.load(self._digest(query)) for query in queries}
            known: dict[str, Vectors | str] = {q: np.frombuffer(v, np.float32) for q, v in kept.items() if v}
            new = [query for query in queries if query not in known]
            for query, vector in zip(new, self._embed(new), strict=True):
                known[query] = vector
                if not isinstance(vector, str):
                    cache.keep(self._digest(query), vector.tobytes())
            return known

    def _embed(self, queries: list[str]) -> list[Vectors | str]:
        if not queries:
            return []
        self._embedder = self._embedder or self._make()
        vectors = self._embedder.embed([self._config.query_prefix + query for query in queries])
        wrong = next((len(v) for v in vectors if not isinstance(v, str) and len(v) != self._dimensions), None)
        if wrong:
            raise SearchError(
                f"{self._config.model} has vectors of {wrong:,} dimensions, and the index some of {self._dimensions:,}",
                "ask the model that the index was built with, or build it again",
            )
        return vectors

    def _digest(self, query: str) -> str:
        asked = [*self._asked, self._config.query_prefix + query]
        return hashlib.sha256(orjson.dumps(["embedding", *asked])).hexdigest()


DENSE = Kind(
    name="dense",
    doc="vectors of an embedding model, by faiss",
    config=DenseConfig,
    settings=DenseSettings,
    build=build,
    open=local_opener(lambda engine, folder, _documents, service: Dense(folder, engine, service)),
)

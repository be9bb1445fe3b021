"""BM25 in parts: each is weighed by the statistics of all passages, so that its scores are those of one index.

Workers count the words of a part; this process adds the counts up; then workers weigh the words of each part. So a
worker holds the words of a part and a block of postings (see `postings.py`), and this process the words of all.
Each is done again where a worker died: what is counted stays until all parts are weighed.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl

from stepsearch_data.core.progress import Meter
from stepsearch_data.core.text import tokens
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.kinds import Engine, no_words
from stepsearch_data.search.parts import ranges, write_parts
from stepsearch_data.search.postings import Array, Postings, merge

ARRAYS = ("indptr.csc.index.npy", "indices.csc.index.npy", "data.csc.index.npy")  # as bm25s calls them
_CHUNK = 16_384  # passages whose words are counted at once
_CHUNKS = "chunks"  # folder of what is counted, until it is weighed
_LENGTHS, _COUNTED = "lengths.npy", "counted.arrow"  # of a part until it is weighed


class Whole(NamedTuple):
    """Statistics of all passages."""

    passages: int
    mean_length: np.float64


def build_parts(engine: Engine, documents: Documents, folder: Path, meter: Meter) -> None:
    """Write an index in parts to an empty folder. Raises SearchError for a corpus without a single word."""
    parts = ranges(len(documents), engine.settings.parts)
    for number in range(len(parts)):
        (folder / str(number)).mkdir()
    words = 0
    known = pl.DataFrame(schema={"word": pl.String, "passages": pl.UInt32})
    count = partial(_count, documents, folder, engine.config.title_weight)
    for number, counted in enumerate(engine.executor.map(count, list(enumerate(parts)))):
        words += counted
        of_part = _read_counted(folder / str(number))
        known = pl.concat([known, of_part]).group_by("word").agg(pl.col("passages").sum())
        meter.advance(parts[number][1] - parts[number][0])
    if not words:
        raise no_words()
    whole = Whole(len(documents), np.float64(words) / len(documents))
    frequencies = (
        _read_counted(folder / str(number)).select("word").join(known, on="word", how="left", maintain_order="left")
        for number in range(len(parts))
    )
    items = ((number, found["passages"].to_numpy()) for number, found in enumerate(frequencies))
    for _ in engine.executor.map(partial(_weigh, engine.config, whole, folder), items):
        pass
    for number in range(len(parts)):
        remove_counted(folder / str(number))
    write_parts(folder, parts)


def _read_counted(folder: Path) -> pl.DataFrame:
    """Return the words of a part, in the order of their numbers, and how many of its passages hold each."""
    return pl.read_ipc(folder / _COUNTED)


def _count(documents: Documents, folder: Path, title_weight: int, part: tuple[int, tuple[int, int]]) -> int:
    """Count the words of a part, in a worker. Return how many there are."""
    number, (start, end) = part
    held = folder / str(number)
    vocabulary, frequencies, lengths = count_words(documents.texts(title_weight, start, end), held)
    np.save(held / _LENGTHS, lengths)
    of_words = {"word": list(vocabulary), "passages": frequencies}
    pl.DataFrame(of_words, schema={"word": pl.String, "passages": pl.UInt32}).write_ipc(held / _COUNTED)
    return int(lengths.sum())


def _weigh(config: Any, whole: Whole, folder: Path, part: tuple[int, Any]) -> None:
    """Weigh the words of a part, in a worker, and write it as bm25s would."""
    number, frequencies = part
    held = folder / str(number)
    counted, lengths = _read_counted(held), np.load(held / _LENGTHS)
    write_weights(Scores(config, frequencies, lengths, whole), counted["passages"].to_numpy().astype(np.int64), held)
    vocabulary = {word: place for place, word in enumerate(counted["word"])}
    (held / "vocab.index.json").write_bytes(orjson.dumps(vocabulary))
    params = {"num_docs": len(lengths), "method": config.variant}
    (held / "params.index.json").write_bytes(orjson.dumps(params))


# --- What an index in one part needs too ------------------------------------------------------------


def count_words(
    texts: Iterator[str], folder: Path, advance: Callable[[int], None] = lambda _: None
) -> tuple[dict[str, int], Array, Array]:
    """Write the postings of texts, a chunk at a time, for `write_weights`.

    Return the number of each word, in how many texts it occurs, and the length of each text.
    """
    aside = folder / _CHUNKS
    shutil.rmtree(aside, ignore_errors=True)  # of a worker that died
    aside.mkdir()
    vocabulary: dict[str, int] = {}
    lengths = [np.empty(0, np.int64)]
    while chunk := list(islice(texts, _CHUNK)):
        lengths.append(_count_chunk(chunk, vocabulary, aside / str(len(lengths) - 1)))
        advance(len(chunk))
    frequencies = np.zeros(len(vocabulary), np.int64)
    for number in range(len(lengths) - 1):
        postings = Postings.load(aside / str(number))
        frequencies[postings.keys] += postings.lengths
    return vocabulary, frequencies, np.concatenate(lengths)


def _count_chunk(texts: Sequence[str], vocabulary: dict[str, int], folder: Path) -> Array:
    """Write the postings of a chunk of texts, and add their words to the vocabulary. Return the length of each."""
    words = [array("i", [vocabulary.setdefault(token, len(vocabulary)) for token in tokens(text)]) for text in texts]
    lengths = np.fromiter(map(len, words), np.int64)
    keys, terms = np.unique(np.concatenate([np.empty(0, np.int32), *words]), return_inverse=True)
    Postings.counted(keys, terms, np.repeat(np.arange(len(texts)), lengths), len(texts)).save(folder)
    return lengths


class Scores:
    """The weights of words in documents, by bm25s; `frequencies` are those of all passages."""

    def __init__(self, config: Any, frequencies: Array, lengths: Array, whole: Whole) -> None:
        from bm25s import BM25, scoring

        idf = "robertson" if config.variant == "atire" else config.variant
        self.index = BM25(method=config.variant, idf_method=idf, k1=config.k1, b=config.b)
        score = scoring._select_idf_scorer(idf)  # noqa: SLF001 - the formulas are its own
        self._idf = np.array([score(frequency, N=whole.passages) for frequency in frequencies.tolist()], np.float32)
        self._tfc = scoring._select_tfc_scorer(config.variant)  # noqa: SLF001
        self.lengths, self._average = lengths, whole.mean_length

    def weigh(self, words: Array, documents: Array, counts: Array) -> Any:
        """See `Weigh`."""
        of = self.index
        shape = {"l_d": self.lengths[documents], "l_avg": self._average, "k1": of.k1, "b": of.b, "delta": of.delta}
        return self._idf[words] * self._tfc(tf_array=counts.astype(np.float32), **shape)


def write_weights(scores: Scores, frequencies: Array, folder: Path) -> None:
    """Write the arrays of an index whose words `count_words` has counted."""
    aside = folder / _CHUNKS
    chunks = [aside / str(number) for number in range(-(-len(scores.lengths) // _CHUNK))]
    indptr, *files = (folder / name for name in ARRAYS)
    np.save(indptr, np.concatenate([[0], np.cumsum(frequencies)]))
    merge(chunks, _CHUNK, np.arange(len(frequencies)), frequencies, scores.weigh, *files)


def remove_counted(folder: Path) -> None:
    """Remove what was written only to be weighed."""
    shutil.rmtree(folder / _CHUNKS)
    for name in (_LENGTHS, _COUNTED):
        (folder / name).unlink(missing_ok=True)

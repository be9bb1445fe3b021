"""BM25 in parts: each is weighed by the statistics of all passages, so that its scores are those of one index.

Workers read the passages of a part and count its words; this process adds the counts up; then workers weigh the words
of each part. So no process holds more than a part, and this one the words of all.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
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

ARRAYS = ("indptr.csc.index.npy", "indices.csc.index.npy", "data.csc.index.npy")  # as bm25s calls them
_WORDS, _LENGTHS, _COUNTED = "words.npy", "lengths.npy", "counted.arrow"  # of a part until it is weighed


class _Whole(NamedTuple):
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
    whole = _Whole(len(documents), np.float64(words) / len(documents))
    frequencies = (
        _read_counted(folder / str(number)).select("word").join(known, on="word", how="left", maintain_order="left")
        for number in range(len(parts))
    )
    items = ((number, found["passages"].to_numpy()) for number, found in enumerate(frequencies))
    for _ in engine.executor.map(partial(_weigh, engine.config, whole, folder), items):
        pass
    write_parts(folder, parts)


def _read_counted(folder: Path) -> pl.DataFrame:
    """Return the words of a part, in the order of their numbers, and how many of its passages hold each."""
    return pl.read_ipc(folder / _COUNTED)


def _count(documents: Documents, folder: Path, title_weight: int, part: tuple[int, tuple[int, int]]) -> int:
    """Count the words of a part, in a worker. Return how many there are."""
    number, (start, end) = part
    vocabulary: dict[str, int] = {}
    passages: Counter[int] = Counter()
    words, lengths = array("i"), array("i")
    for text in documents.texts(title_weight, start, end):
        numbers = [vocabulary.setdefault(token, len(vocabulary)) for token in tokens(text)]
        passages.update(set(numbers))
        words.extend(numbers)
        lengths.append(len(numbers))
    held = folder / str(number)
    np.save(held / _WORDS, np.frombuffer(words, np.int32))
    np.save(held / _LENGTHS, np.frombuffer(lengths, np.int32))
    of_words = {"word": list(vocabulary), "passages": [passages[word] for word in range(len(vocabulary))]}
    pl.DataFrame(of_words, schema={"word": pl.String, "passages": pl.UInt32}).write_ipc(held / _COUNTED)
    return len(words)


def _weigh(config: Any, whole: _Whole, folder: Path, part: tuple[int, Any]) -> None:
    """Weigh the words of a part, in a worker, and write it as bm25s would."""
    os.environ["DISABLE_TQDM"] = "1"  # a bar that is not even shown leaves a semaphore behind in a worker
    from bm25s import scoring

    number, frequencies = part
    held = folder / str(number)
    counted = _read_counted(held)
    lengths = np.load(held / _LENGTHS)
    idf = scoring._select_idf_scorer("robertson" if config.variant == "atire" else config.variant)  # noqa: SLF001
    weights, documents, words = scoring._build_scores_and_indices_for_matrix(  # noqa: SLF001
        corpus_token_ids=_passages(np.load(held / _WORDS), lengths),
        idf_array=scoring._build_idf_array(dict(enumerate(frequencies.tolist())), whole.passages, idf),  # noqa: SLF001
        avg_doc_len=whole.mean_length,
        doc_frequencies=dict(enumerate(counted["passages"])),
        k1=config.k1,
        b=config.b,
        delta=None,
        nonoccurrence_array=None,
        method=config.variant,
        show_progress=False,
    )
    order = np.argsort(words, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(words, minlength=len(counted)))]).astype(np.int64)
    for name, values in zip(ARRAYS, (starts, documents[order], weights[order]), strict=True):
        np.save(held / name, values)
    vocabulary = {word: place for place, word in enumerate(counted["word"])}
    (held / "vocab.index.json").write_bytes(orjson.dumps(vocabulary))
    params = {"num_docs": len(lengths), "method": config.variant}
    (held / "params.index.json").write_bytes(orjson.dumps(params))
    for name in (_WORDS, _LENGTHS, _COUNTED):
        (held / name).unlink()


def _passages(words: Any, lengths: Any) -> Iterator[Sequence[int]]:
    """Yield the words of each passage."""
    end = 0
    for length in lengths.tolist():
        yield words[end : end + length].tolist()
        end += length

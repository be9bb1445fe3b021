"""Splits that share no gold paragraph, and that stay the same when data is added."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from stepsearch_data.core.text import normalise
from stepsearch_data.stages.gates.duplicates import Keys, band_keys

_BATCH = 2_000
_COLUMNS = ["question", "answer", "answerable", "supporting.list.element.passage_id"]


class Groups:
    """Questions that share a gold paragraph, or their wording, directly or through others: a union-find over keys.

    A group is named by its smallest key, which is a passage id: those are hexadecimal digits, and the key of
    a wording begins behind them.
    """

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._questions: Counter[str] = Counter()

    def add(self, question: str, passages: Iterable[str]) -> None:
        """Put a question's gold passages into one group."""
        wording = _wording(question)
        root = self._root(wording)
        for key in passages:
            low, high = sorted((root, self._root(key)))
            self._parents[high] = root = low
        self._questions[wording] += 1

    def count(self) -> None:
        """Count the questions of each group; called once, after the last `add`."""
        totals: Counter[str] = Counter()
        for wording, questions in self._questions.items():
            totals[self._root(wording)] += questions
        self._questions = totals

    def name(self, question: str) -> str:
        """Return the group of a question that was added."""
        return self._root(_wording(question))

    def size(self, group: str) -> int:
        """Return the number of questions of a group."""
        return self._questions[group]

    def _root(self, key: str) -> str:
        """Return the smallest key of the group. Path halving keeps the next look-ups short."""
        parents = self._parents
        parent = parents.setdefault(key, key)
        while parent != key:
            parents[key] = parents[parent]
            key, parent = parent, parents[parent]
        return key


def _wording(question: str) -> str:
    return "wording " + hashlib.blake2b(normalise(question).encode(), digest_size=8).hexdigest()


def survey(questions: Path) -> tuple[Groups, Keys]:
    """Return groups of questions that share gold paragraphs, and each question's keys for finding duplicates.

    All loaded questions count. So a question that a gate rejects moves no other question to the other split.
    """
    groups = Groups()
    keys = band_keys(_grouped(questions, groups))
    groups.count()
    return groups, keys


def _grouped(questions: Path, groups: Groups) -> Iterator[tuple[str, str, bool]]:
    with pq.ParquetFile(questions) as file:
        for batch in file.iter_batches(batch_size=_BATCH, columns=_COLUMNS):
            for row in batch.to_pylist():
                groups.add(row["question"], [gold["passage_id"] for gold in row["supporting"]])
                yield row["question"], row["answer"], row["answerable"]


def split_of(group: str, size: int, *, validation: float, largest: int, seed: int) -> str:
    """Return `train` or `validation` by a hash of the group's name and the seed, whatever other groups there are."""
    draw = hashlib.blake2b(f"{seed} {group}".encode(), digest_size=8).digest()
    drawn = int.from_bytes(draw, "big") < validation * 2**64
    return "validation" if drawn and size <= largest else "train"

"""Splits that share no gold paragraph, and that stay the same when data is added."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stepsearch_data.core.text import normalise
from stepsearch_data.stages.gates.config import QualityConfig


@dataclass
class Groups:
    """Questions that share a gold paragraph, or their wording, directly or through others.

    A group is named by its smallest passage id, or by a wording where it has no passage. Kept in arrays: a build may
    have millions of questions.
    """

    _wordings: list[NDArray[np.uint64]] = field(default_factory=list)
    _passages: list[NDArray[np.bytes_]] = field(default_factory=list)
    _counts: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, wordings: NDArray[np.uint64], passages: Sequence[Sequence[str]]) -> None:
        """Add questions: the hash of the wording of each (see `wording`), and its gold passages."""
        self._wordings.append(wordings)
        self._counts.append(np.array([len(ids) for ids in passages], np.int64))
        self._passages.append(np.array([passage.encode() for ids in passages for passage in ids], np.bytes_))

    def find(self) -> None:
        """Find the groups; called once, after the last `add`."""
        self._names, passages = np.unique(np.concatenate([np.empty(0, "S1"), *self._passages]), return_inverse=True)
        self._hashes, wordings = np.unique(
            np.concatenate([np.empty(0, np.uint64), *self._wordings]), return_inverse=True
        )
        nodes = wordings + len(self._names)  # passages come first, so that they name the group
        edges = np.repeat(nodes, np.concatenate([np.empty(0, np.int64), *self._counts])), passages
        self._groups = _smallest_connected(len(self._names) + len(self._hashes), *edges)[nodes]
        self._sizes = np.bincount(self._groups)
        self._wordings, self._passages, self._counts = [], [], []

    def name(self, place: int) -> str:
        """Return the group of the question that was added at this place, from 0."""
        group = int(self._groups[place])
        if group < len(self._names):
            return str(self._names[group].decode())
        return f"wording {self._hashes[group - len(self._names)]:016x}"

    def size(self, place: int) -> int:
        """Return the number of questions of its group."""
        return int(self._sizes[self._groups[place]])


def _smallest_connected(nodes: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each node the smallest node that edges from `one` to `other` connect it with."""
    smallest = np.arange(nodes)
    while True:
        least = np.minimum(smallest[one], smallest[other])
        lowered = smallest.copy()
        for end in (one, other):
            np.minimum.at(lowered, smallest[end], least)  # what a whole tree is connected with, so few rounds suffice
            np.minimum.at(lowered, end, least)
        lowered = lowered[lowered]
        if np.array_equal(lowered, smallest):
            return smallest
        smallest = lowered


def wording(question: str) -> int:
    """Return a hash of a question's words, 64 bits."""
    return int.from_bytes(hashlib.blake2b(normalise(question).encode(), digest_size=8).digest(), "big")


def split_of(group: str, size: int, config: QualityConfig) -> str:
    """Return `train` or `validation` by a hash of the group's name and the seed, whatever other groups there are."""
    draw = hashlib.blake2b(f"{config.seed} {group}".encode(), digest_size=8).digest()
    drawn = int.from_bytes(draw, "big") < config.validation * 2**64
    return "validation" if drawn and size <= config.largest_validation_group else "train"

"""Questions that repeat an earlier one, in the same or nearly the same words.

MinHash with LSH (Broder 1997) finds candidates among all questions; each is then compared exactly. Two
questions are near-duplicates when they have the same answer, the same names and numbers, and most 4-grams of
characters of their other words: "the composer of Norma" and "the composer of Tosca" are not.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepsearch_data.core.text import normalise
from stepsearch_data.stages.rules import STOP_WORDS, keywords

_BANDS, _ROWS = 16, 4  # finds 99.98 % of the pairs with a Jaccard similarity of 0.8, 87 % of those with 0.6
_GRAM = 4
_MOST = 100  # candidates that a question is compared with
_RANDOM = b"".join(hashlib.blake2b(f"minhash {n}".encode()).digest() for n in range(2 * _BANDS * _ROWS // 8))
_FACTORS, _SHIFTS = np.frombuffer(_RANDOM, dtype="<u8").reshape(2, _BANDS * _ROWS) | np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)
Keys = NDArray[np.uint64]


class _Kept(NamedTuple):
    question_id: str
    answer: str
    names: frozenset[str]
    grams: frozenset[int]


class Duplicates:
    """The questions that were kept so far. Unanswerable twins are compared only with one another.

    `wordings` has a hash of the words of each question to come, `keys` its keys (see `band_keys`). A question is
    remembered only where one of them occurs twice.
    """

    def __init__(self, wordings: NDArray[np.uint64], keys: Keys, similarity: float) -> None:
        self._wordings, self._keys = wordings, keys
        self._repeated_wordings, self._repeated_keys = _repeated(wordings), _repeated(keys)
        self._similarity = similarity
        self._same: dict[tuple[bool, str], str] = {}
        self._near: defaultdict[int, list[_Kept]] = defaultdict(list)

    def same(self, place: int, question: str, *, answerable: bool) -> str | None:
        """Return the id of the kept question with the same words as the one at this place, or None."""
        if int(self._wordings[place]) not in self._repeated_wordings:
            return None
        return self._same.get((answerable, normalise(question)))

    def near(self, place: int, question: str, answer: str) -> str | None:
        """Return the id of the first kept near-duplicate of the question at this place, or None."""
        candidates = {kept.question_id: kept for key in self._suspects(place) for kept in self._near[key]}
        if not candidates:
            return None
        own = _describe("", question, answer)
        compared = list(candidates.values())[:_MOST]
        return next((kept.question_id for kept in compared if self._are_near_duplicates(own, kept)), None)

    def keep(self, place: int, question_id: str, question: str, answer: str, *, answerable: bool) -> None:
        """Remember a question, so that a later one that repeats it is a duplicate."""
        if int(self._wordings[place]) in self._repeated_wordings:
            self._same.setdefault((answerable, normalise(question)), question_id)
        suspects = self._suspects(place)
        if suspects:
            described = _describe(question_id, question, answer)
            for key in suspects:
                self._near[key].append(described)

    def _suspects(self, place: int) -> list[int]:
        return [key for key in self._keys[place].tolist() if key in self._repeated_keys]

    def _are_near_duplicates(self, one: _Kept, other: _Kept) -> bool:
        if one.answer != other.answer or one.names != other.names:
            return False
        return len(one.grams & other.grams) >= self._similarity * len(one.grams | other.grams)


def _repeated(keys: Keys) -> set[int]:
    found, counts = np.unique(keys, return_counts=True)
    return set(found[counts > 1].tolist())


def band_keys(texts: Iterable[tuple[str, str, bool]]) -> Keys:
    """Return keys, shape (n, 16), of (question, answer, answerable). Near-duplicates share a key.

    The answer and `answerable` are part of each key.
    """
    rows = [_band_keys(*text) for text in texts]
    return np.stack(rows) if rows else np.empty((0, _BANDS), np.uint64)


def _band_keys(question: str, answer: str, answerable: bool) -> Keys:  # noqa: FBT001 - one field of a row
    grams = np.array(sorted(_grams(question)) or [0], np.uint64)
    signature = ((grams[:, None] * _FACTORS + _SHIFTS) >> np.uint64(32)).min(axis=0).reshape(_BANDS, _ROWS)
    keys = np.arange(_BANDS, dtype=np.uint64) + np.uint64(zlib.crc32(f"{answerable} {normalise(answer)}".encode()))
    for row in range(_ROWS):
        keys = (keys ^ (keys >> np.uint64(29))) * _MIX + signature[:, row]
    return keys


def _describe(question_id: str, question: str, answer: str) -> _Kept:
    words = keywords(question)
    names = frozenset(normalise(word) for word in words if word != word.lower() or any(map(str.isdigit, word)))
    return _Kept(question_id, normalise(answer), names, _grams(question))


def _grams(question: str) -> frozenset[int]:
    """Return checksums of the words' 4-grams, without stop words and final s, in no order."""
    padded = (f" {word.removesuffix('s')} " for word in normalise(question).split() if word not in STOP_WORDS)
    return frozenset(
        zlib.crc32(word[at : at + _GRAM].encode()) for word in padded for at in range(max(1, len(word) - _GRAM + 1))
    )

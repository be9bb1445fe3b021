"""Rewards of searches: information gain, redundancy penalty and search keys (arXiv 2505.15107)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepsearch_data.core.text import normalise, tfidf_words
from stepsearch_data.rewards.answers import overlap

Array = NDArray[np.float64]


class GoldMatcher:
    """TF-IDF cosines of any documents with the gold paragraphs of one question.

    Words are those of scikit-learn's `TfidfVectorizer` after the official normalisation, with raw
    counts, smooth idf and no stop words. The paper does not tell the texts of the idf. Here it is computed
    once, on the gold paragraphs. With `refit` it is computed as in the reference code (`submodule.py`): for
    each document, on that document and the gold paragraphs. That changes each document frequency by at
    most one, so it is a correction of the same sums and needs no second pass.
    """

    def __init__(self, golds: Sequence[str], *, refit: bool = False) -> None:
        texts = [tfidf_words(gold) for gold in golds]
        self._places = {word: at for at, word in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
        self._counts, _ = self._count(texts)
        frequency = (self._counts > 0).sum(axis=0)
        fitted = len(texts) + refit  # documents that the idf is counted on
        absent = _squared_idf(fitted, frequency)  # of words that the document lacks
        (self._unknown,) = _squared_idf(fitted, np.array([refit]))  # of the document's words that no gold has
        self._present = _squared_idf(fitted, frequency + 1) if refit else absent
        squares = self._counts**2
        self._norms = squares @ absent
        self._corrections = squares * (self._present - absent) if refit else None

    def cosines(self, documents: Sequence[str]) -> Array:
        """Return the cosine of each document with each gold paragraph, shape (documents, golds), in [0, 1].

        It is 0 where either has no word; there the reference code raises "empty vocabulary".
        """
        counts, unknown = self._count([tfidf_words(document) for document in documents])
        dots = (counts * self._present) @ self._counts.T
        lengths = counts**2 @ self._present + unknown * self._unknown
        golds = self._norms
        if self._corrections is not None:
            golds = golds + (counts > 0) @ self._corrections.T
        cosines: Array = np.divide(dots, np.sqrt(lengths[:, None] * golds), out=np.zeros_like(dots), where=dots > 0)
        cosines.clip(max=1.0, out=cosines)
        return cosines

    def _count(self, texts: Sequence[Sequence[str]]) -> tuple[Array, Array]:
        """Return counts of the golds' words, shape (texts, words), and sums of squared counts of all other words."""
        golds = len(self._places)
        places = defaultdict(count(golds).__next__, self._places)
        columns = np.array([places[word] for words in texts for word in words], np.intp)
        rows = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
        size = len(texts), len(places)
        counts = np.bincount(rows * size[1] + columns, minlength=size[0] * size[1]).reshape(size).astype(np.float64)
        return np.ascontiguousarray(counts[:, :golds]), (counts[:, golds:] ** 2).sum(axis=1)


def _squared_idf(documents: int, frequency: NDArray[np.int64]) -> Array:
    """Return the squared smooth idf: (ln((1 + documents) / (1 + frequency)) + 1)²."""
    idf: Array = np.log((1 + documents) / (1 + frequency)) + 1
    return idf**2


class Gains(NamedTuple):
    """G^t of every round, and the memory m after it, shape (rounds, golds)."""

    gains: list[float]
    memory: Array


def information_gain(rounds: Sequence[Sequence[str]], golds: Sequence[str], *, refit: bool = False) -> Gains:
    """Compute G^t = (1/n) Σ_i max(c_i^t - m_i, 0), then m_i ← max(m_i, c_i^t), of every round.

    c_i^t is max_j cos(gold_i, document_j).

    `rounds` holds the texts of each round's documents. G is 0 where there is no gold paragraph. The
    reference code: `step_information_gain` in `qa_step.py`, with `refit`.
    """
    # Sorted, so that the order of documents cannot change a digit.
    places = {text: at for at, text in enumerate(sorted({text for texts in rounds for text in texts}))}
    cosines = GoldMatcher(golds, refit=refit).cosines(list(places))
    memory = np.zeros((len(rounds) + 1, len(golds)))
    for t, texts in enumerate(rounds, start=1):
        cosines[[places[text] for text in texts]].max(axis=0, initial=0.0, out=memory[t])
    np.maximum.accumulate(memory, out=memory)
    gains = (memory[1:] - memory[:-1]).mean(axis=1).tolist() if golds else [0.0] * len(rounds)
    return Gains(gains, memory[1:])


def redundancy_penalty(
    rounds: Sequence[Sequence[str]], *, repeats_in_round: bool = False, queries: Sequence[str] | None = None
) -> list[float]:
    """Compute P^t = (1/k) Σ_j 1[d_j ∈ H], H the documents of earlier rounds; 0 for a round without documents.

    Documents are the same when their texts are. The reference code (`qa_step.py`) counts repeats in the round itself
    too. With the rounds' `queries` it is P^t · 1[q_t ∈ {q_1 … q_(t−1)}], queries normalised: who asks something new is
    not to blame for what the engine returns.
    """
    asked = [normalise(query) for query in queries] if queries is not None else None
    seen: set[str] = set()
    penalties = []
    for t, texts in enumerate(rounds):
        repeated = 0
        earlier = seen if repeats_in_round else frozenset(seen)
        for text in texts:
            repeated += text in earlier
            seen.add(text)
        is_new = asked is not None and asked[t] not in asked[:t]
        penalties.append(repeated / len(texts) if texts and not is_new else 0.0)
    return penalties


def search_key_reward(
    queries: Sequence[str],
    keys: Sequence[Sequence[str]],
    *,
    one_key_per_query: bool = False,
    decimals: int | None = None,
) -> float:
    """Compute r_key = (1/M') Σ_i max_j max_t F1(q_t, k_ij) over the M' sub-questions' queries k_ij; 0 without any.

    In the reference code (`step_search_keys_match` in `qa_step.py`), each query credits only its best
    sub-question (`one_key_per_query`), and a later query overwrites an earlier one's score.
    """
    if not keys or not queries:
        return 0.0
    asked = [normalise(query).split() for query in queries]
    references = [[normalise(key).split() for key in group] for group in keys]
    if not one_key_per_query:
        return float(np.sum([_best_f1(asked, group, decimals) for group in references])) / len(keys)
    scores = np.array([[_best_f1([words], group, decimals) for group in references] for words in asked])
    credited: dict[int, float] = {}
    for row in scores:
        if row.max() > 0:
            credited[int(row.argmax())] = float(row.max())
    return sum(credited[i] for i in sorted(credited)) / len(keys)


def _best_f1(queries: list[list[str]], keys: list[list[str]], decimals: int | None) -> float:
    """Return the highest word F1 of a query with a key. Most queries are one of the keys, which is found at once."""
    if any(words and words in keys for words in queries):
        return 1.0
    best = max((overlap(words, key)[0] for words in queries for key in keys), default=0.0)
    return best if decimals is None else round(best, decimals)

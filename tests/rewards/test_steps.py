"""Gains, penalties and keys: hand-computed, against scikit-learn, and their laws."""

from __future__ import annotations

from math import isclose, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from stepsearch_data.core.text import normalise, tfidf_words, tokens
from stepsearch_data.rewards import GoldMatcher, information_gain, redundancy_penalty, search_key_reward

GOLDS = ["alpha beta", "gamma epsilon"]
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "a", "an", "the", "3", "été", "U.S.", "?!", "x\x00y")
documents = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join) | st.text(max_size=20)
rounds = st.lists(st.lists(documents, max_size=4), max_size=5)
golds = st.lists(documents, max_size=4)
switches = st.booleans()


def test_cosines_by_hand() -> None:
    """Two gold paragraphs: a word of one of them has idf ln(3/2) + 1, a word of none ln(3) + 1."""
    known, unknown = log(3 / 2) + 1, log(3) + 1
    found = GoldMatcher(GOLDS).cosines(["alpha beta", "gamma delta", "delta"])
    expected = [[1.0, 0.0], [0.0, known / sqrt(2) / sqrt(known**2 + unknown**2)], [0.0, 0.0]]
    assert np.allclose(found, expected, atol=1e-15)


def test_cosines_by_hand_with_refit() -> None:
    """With the document three texts: gamma is in two of them, delta and epsilon in one each."""
    twice, once = log(4 / 3) + 1, log(4 / 2) + 1
    found = GoldMatcher(GOLDS, refit=True).cosines(["gamma delta"])
    assert np.allclose(found, [[0.0, twice**2 / (twice**2 + once**2)]], atol=1e-15)


@given(st.lists(documents, min_size=1, max_size=4), st.lists(documents, min_size=1, max_size=4))
def test_refit_is_what_scikit_learn_computes(texts: list[str], paragraphs: list[str]) -> None:
    ours = GoldMatcher(paragraphs, refit=True).cosines(texts)
    plain = [normalise(text) for text in paragraphs]
    for row, text in zip(ours, texts, strict=True):
        try:
            matrix = TfidfVectorizer().fit_transform([normalise(text), *plain])
        except ValueError:  # an empty vocabulary (departure 10)
            assert not row.any()
            continue
        assert np.allclose(row, cosine_similarity(matrix[0], matrix[1:]).ravel(), atol=1e-12)


@given(st.text() | documents)
def test_words_are_the_tokens_of_the_normalised_text(text: str) -> None:
    assert tfidf_words(text) == tokens(normalise(text))


def test_gains_add_up_to_what_was_found() -> None:
    gains, memory = information_gain([["alpha beta"], ["alpha beta"], [], ["gamma epsilon", "alpha"]], GOLDS)
    assert gains == [0.5, 0.0, 0.0, 0.5]
    assert np.allclose(memory, [[1, 0], [1, 0], [1, 0], [1, 1]])
    assert information_gain([["alpha"]], []).gains == [0.0]
    assert information_gain([], GOLDS).gains == []
    assert information_gain([["?", ""]], ["", "!"]).gains == [0.0]


@pytest.mark.parametrize(
    ("found", "within", "expected"),
    [
        ([["a", "b"], ["b", "c", "a"]], False, [0.0, 2 / 3]),
        ([["a", "a"], ["a"]], False, [0.0, 1.0]),
        ([["a", "a"], ["a"]], True, [0.5, 1.0]),
        ([[], ["a"], []], True, [0.0, 0.0, 0.0]),
        ([["", ""], [""]], False, [0.0, 1.0]),  # documents without words are documents
    ],
)
def test_penalties_by_hand(found: list[list[str]], within: bool, expected: list[float]) -> None:
    assert redundancy_penalty(found, repeats_in_round=within) == expected


def test_penalties_for_repeated_queries_by_hand() -> None:
    """The second round repeats a document for a new query, the third for the first query in other words."""
    found, queries = [["a", "b"], ["b", "c"], ["c", "d"]], ["The Tosca?", "puccini", "tosca"]
    assert redundancy_penalty(found) == [0.0, 0.5, 0.5]
    assert redundancy_penalty(found, queries=queries) == [0.0, 0.0, 0.5]


def test_search_keys_by_hand() -> None:
    keys = [["tosca composer", "who wrote tosca"], ["puccini birthplace"], ["lucca"]]
    found = search_key_reward(["who composed tosca", "puccini birthplace"], keys)
    assert isclose(found, (2 / 3 + 1 + 0) / 3)
    # one query serves two sub-questions, or the better one only
    shared = ["puccini tosca"]
    both = [["tosca"], ["puccini opera"]]
    assert isclose(search_key_reward(shared, both), (2 / 3 + 1 / 2) / 2)
    assert isclose(search_key_reward(shared, both, one_key_per_query=True), (2 / 3) / 2)
    # the second query overwrites what the first earned
    assert isclose(search_key_reward(["lucca", "lucca x"], [["lucca"]], one_key_per_query=True), 2 / 3)
    assert search_key_reward(["lucca", "lucca x"], [["lucca"]]) == 1.0
    assert search_key_reward(["lucca x"], [["lucca"]], decimals=4) == 0.6667
    assert search_key_reward([], keys) == search_key_reward(["x"], []) == search_key_reward(["x"], [[]]) == 0.0


@given(rounds, golds, switches)
def test_gains_are_shares_and_the_memory_only_grows(found: list[list[str]], paragraphs: list[str], refit: bool) -> None:
    gains, memory = information_gain(found, paragraphs, refit=refit)
    assert len(gains) == len(found)
    assert all(0 <= gain <= 1 for gain in gains)
    assert memory.shape == (len(found), len(paragraphs))
    assert (np.diff(memory, axis=0) >= 0).all()
    assert sum(gains) <= 1 + 1e-12


@given(rounds, golds, switches, st.randoms(use_true_random=False))
def test_the_order_in_a_round_changes_no_digit(
    found: list[list[str]], paragraphs: list[str], refit: bool, chance: st.DataObject
) -> None:
    shuffled = [chance.sample(texts, len(texts)) for texts in found]  # type: ignore[attr-defined]  # a random.Random
    assert (
        information_gain(shuffled, paragraphs, refit=refit).gains
        == information_gain(found, paragraphs, refit=refit).gains
    )


@given(rounds, switches)
def test_penalties_are_shares(found: list[list[str]], within: bool) -> None:
    penalties = redundancy_penalty(found, repeats_in_round=within)
    assert len(penalties) == len(found)
    assert all(0 <= penalty <= 1 for penalty in penalties)
    assert penalties[:1] in ([], [0.0]) or within


@given(st.lists(documents, max_size=4), st.lists(st.lists(documents, max_size=3), max_size=4), switches)
def test_key_rewards_are_shares(queries: list[str], keys: list[list[str]], one: bool) -> None:
    reward = search_key_reward(queries, keys, one_key_per_query=one)
    assert 0 <= reward <= 1
    assert reward >= search_key_reward(queries, keys, one_key_per_query=True) - 1e-12

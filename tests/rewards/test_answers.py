"""The official scripts' rules, by hand; tests/scoring has the golden cases."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.rewards import (
    Metric,
    exact_match,
    hotpotqa_answer,
    hotpotqa_support,
    joint,
    musique_answer,
    musique_support,
    token_f1,
    wiki2_answer,
    wiki2_evidence,
    wiki2_support,
)

ONE, ZERO = Metric(1.0, 1.0, 1.0, 1.0), Metric(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("prediction", "golds", "em", "f1"),
    [
        ("The Beatles", ["beatles"], 1, 1.0),
        ("John Lennon", ["Lennon"], 0, 2 / 3),
        ("John Lennon", ["Paul", "Lennon", "Mister John Lennon"], 0, 0.8),  # each maximum on its own
        ("the x", ["x x y"], 0, 0.5),  # multisets without articles: precision 1, recall 1/3
        ("", ["the"], 1, 1.0),  # both are empty after normalisation
        ("", ["Rome"], 0, 0.0),
        ("yes", ["yes indeed"], 0, 2 / 3),  # no rule for yes and no
        ("anything", [], 0, 0.0),
    ],
)
def test_musique_answers(prediction: str, golds: list[str], em: int, f1: float) -> None:
    found = musique_answer(prediction, golds)
    assert found[0] == em
    assert isclose(found[1], f1)


def test_hotpotqa_answers() -> None:
    assert hotpotqa_answer("The Beatles!", "beatles") == ONE
    assert hotpotqa_answer("John Lennon", "Lennon") == Metric(0.0, 2 / 3, 0.5, 1.0)
    assert hotpotqa_answer("yes indeed", "yes") == ZERO
    assert hotpotqa_answer("no", "no one") == ZERO
    assert hotpotqa_answer("noanswer", "noanswer") == ONE
    assert hotpotqa_answer("the", "an") == Metric(1.0, 0.0, 0.0, 0.0)  # empty: equal, but no shared word


def test_wiki2_answers_take_the_best_alias_for_each_number() -> None:
    aliases = {"Q1": ["United States of America", "US"]}
    assert wiki2_answer("us", "United States", "Q1", aliases) == ONE
    assert wiki2_answer("us", "United States", "Q2", aliases) == ZERO
    assert wiki2_answer("us", "United States") == ZERO
    # precision from "United States", recall from "US"
    assert wiki2_answer("US States", "United States", "Q1", aliases) == Metric(0.0, 2 / 3, 0.5, 1.0)


def test_support_scores() -> None:
    assert musique_support([2, 5, 5], [5, 2]) == ONE
    assert musique_support([1, 2], [2, 3, 4]) == Metric(0.0, 0.4, 0.5, 1 / 3)
    assert musique_support([], []) == Metric(1.0, 1.0, 0.0, 0.0)
    assert hotpotqa_support([("A", 0)], [("A", 0), ("B", 1)]) == Metric(0.0, 2 / 3, 1.0, 0.5)
    assert hotpotqa_support([("a", 0)], [("A", 0)]) == ZERO
    assert hotpotqa_support([], []) == Metric(1.0, 0.0, 0.0, 0.0)
    assert wiki2_support([("a", 0)], [("A", 0)]) == ONE
    assert wiki2_support([("a", 0), ("A", 0)], [("A", 0), ("B", 0)]) == Metric(0.0, 0.8, 1.0, 2 / 3)


def test_evidence_triples_with_aliases() -> None:
    gold = [("Tosca", "composer", "Giacomo Puccini"), ("Puccini", "place of birth", "Lucca")]
    ids = [("Q1", "composer", "Q2"), ("Q2", "place of birth", "Q3")]
    aliases = {"Q2": {"Puccini", "G. Puccini"}}
    assert wiki2_evidence([("tosca", "composer", "g puccini"), gold[1]], gold, ids, aliases) == ONE
    assert wiki2_evidence([("tosca", "composer", "g puccini")], gold) == ZERO
    assert wiki2_evidence(gold[:1], gold) == Metric(0.0, 2 / 3, 1.0, 0.5)
    assert wiki2_evidence([("The Tosca", "composer", "Giacomo Puccini")], gold) == ZERO  # articles count here
    assert wiki2_evidence([], []) == Metric(1.0, 0.0, 0.0, 0.0)


def test_joint_scores_are_products() -> None:
    answer, support = Metric(1.0, 1.0, 1.0, 1.0), Metric(0.0, 2 / 3, 1.0, 0.5)
    assert joint(answer, support) == Metric(0.0, 2 / 3, 1.0, 0.5)
    assert joint(answer, support, Metric(0.0, 0.5, 0.5, 0.5)) == Metric(0.0, 1 / 3, 0.5, 0.25)
    assert joint(ZERO, ONE) == ZERO


def test_token_f1_is_the_best_over_the_golds_and_rounded_on_demand() -> None:
    assert isclose(token_f1("John Lennon", ["Lennon", "Paul"]), 2 / 3)
    assert token_f1("John Lennon", ["Lennon"], decimals=4) == 0.6667
    assert token_f1("", [""]) == 0.0
    assert token_f1("x", []) == 0.0


@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_text_has_metrics(prediction: str, golds: list[str]) -> None:
    em, f1 = musique_answer(prediction, golds)
    assert em in (0, 1)
    assert 0 <= f1 <= 1
    assert em == exact_match(prediction, golds)
    for gold in golds:
        assert all(0 <= number <= 1 for number in hotpotqa_answer(prediction, gold))

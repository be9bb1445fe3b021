from __future__ import annotations

from stepsearch_data.stages.rules import forbidden, leaked
from tests.builders import sub_question

HOPS = [
    sub_question(1, sub_answer="Gioachino Rossini"),
    sub_question(2, sub_answer="29 February 1792; Pesaro"),
]


def test_own_later_and_final_answers_are_forbidden() -> None:
    assert forbidden(HOPS, 1, ["Pesaro", "Pesaro, Italy"]) == [
        "Gioachino Rossini",
        "29 February 1792",
        "Pesaro",
        "Pesaro, Italy",
    ]


def test_earlier_answers_are_not() -> None:
    assert "Gioachino Rossini" not in forbidden(HOPS, 2, ["Pesaro"])


def test_a_query_leaks_what_the_question_does_not_say() -> None:
    assert leaked("rossini, gioachino birthplace", "Who composed it?", ["Gioachino Rossini"]) == []
    assert leaked("birthplace of Gioachino Rossini", "Who composed it?", ["Gioachino Rossini"]) == ["Gioachino Rossini"]
    assert leaked("birthplace of Gioachino Rossini", "Did Gioachino Rossini compose it?", ["Gioachino Rossini"]) == []


def test_longer_answers_are_found_inside_words_and_short_ones_only_as_words() -> None:
    assert leaked("Iranian poets", "Which country?", ["Iran"]) == ["Iran"]
    assert leaked("born in 1948", "When?", ["48"]) == []
    assert leaked("born in 48", "When?", ["48"]) == ["48"]

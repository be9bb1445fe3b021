"""Every signal: a question that fails it, a near miss that does not, and one that it says nothing about."""

from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.schemas.rows import DecompositionStep, Question
from stepsearch_data.stages.proof.signals import (
    is_closed_choice,
    names_of_several,
    search_signals,
    static_signals,
)
from stepsearch_data.stages.rules import decompose
from tests.builders import question, supporting

OPERA = supporting("p1", "The Barber of Seville", "The opera was composed by Gioachino Rossini.")
COMPOSER = supporting("p2", "Gioachino Rossini", "Rossini was born in Pesaro.")
STEPS = [
    DecompositionStep(text="Who composed The Barber of Seville?", answer="Gioachino Rossini", passage_id="p1"),
    DecompositionStep(text="Where was #1 born?", answer="Pesaro", passage_id="p2"),
]


def chain(**fields: Any) -> Question:
    """A good chain of two hops; each part can be changed."""
    return question(**{"decomposition": STEPS, "supporting": [OPERA, COMPOSER], **fields})


def step(at: int, **fields: Any) -> dict[str, Any]:
    steps = list(STEPS)
    steps[at] = steps[at].model_copy(update=fields)
    return {"decomposition": steps}


def gold(at: int, **fields: Any) -> dict[str, Any]:
    paragraphs = [OPERA, COMPOSER]
    paragraphs[at] = paragraphs[at].model_copy(update=fields)
    return {"supporting": paragraphs}


def outcomes(asked: Question, several: frozenset[str] = frozenset()) -> dict[str, str]:
    return {signal.check: signal.outcome for signal in static_signals(asked, decompose(asked), several)}


def reason(asked: Question, check: str) -> str:
    return next(s.reason for s in static_signals(asked, decompose(asked), frozenset()) if s.check == check)


def test_a_good_chain_fails_nothing() -> None:
    assert set(outcomes(chain()).values()) == {"passed"}


UNLINKED = gold(1, title="Pesaro", text="Many composers were born in Pesaro.")


@pytest.mark.parametrize(
    ("check", "fields", "near_miss"),
    [
        ("unlinked_hop", UNLINKED, gold(1, title="Pesaro", text="Gioachino Rossini's birthplace is Pesaro.")),
        (
            "bridge_named",
            {"question": "Where was Gioachino Rossini, composer of The Barber of Seville, born?"},
            {"question": "Where was Gioachino, composer of The Barber of Seville, born?"},
        ),
        (
            "answer_named",
            {"question": "Where was the composer of The Barber of Seville born, in Pesaro?"},
            {"question": "Where was the composer of The Barber of Seville born, in Rome?"},
        ),
        (
            "answer_not_in_gold",
            gold(1, text="Rossini was born in Italy."),
            {**gold(1, text="He was born in Urbino."), "answer_aliases": ["Urbino"]},
        ),
        (
            "answer_in_several",
            gold(0, text="An opera by Gioachino Rossini, first heard in Pesaro."),
            gold(0, text="An opera by Gioachino Rossini, first heard in Rome."),
        ),
        (
            "one_paragraph",
            gold(1, text="Gioachino Rossini, composer of the Barber of Seville, was born in Pesaro."),
            gold(1, text="Gioachino Rossini, composer of many operas, was born in Pesaro."),
        ),
        (
            "time_dependent",
            {"question": "Who is the current mayor of the city where the composer was born?"},
            {"question": "Who wrote Now You See Him about the city where the composer was born?"},
        ),
        (
            "closed_choice",
            {"question": "Was the composer of The Barber of Seville born in Pesaro or Rome?"},
            {"question": "Was the composer of The Barber of Seville born in Bari or Rome?"},
        ),
    ],
)
def test_a_signal_and_its_near_miss(check: str, fields: dict[str, Any], near_miss: dict[str, Any]) -> None:
    assert outcomes(chain(**fields))[check] == "failed"
    assert outcomes(chain(**near_miss))[check] == "passed"


def test_a_subject_with_several_titles_that_the_question_does_not_tell_apart() -> None:
    titles = ["True Grit (1969 film)", "True Grit (2010 film)", "Pesaro", "Pesaro (disambiguation)"]
    several = names_of_several(titles)
    assert several == {"true grit"}
    film = gold(0, title="True Grit (1969 film)", text="The star of True Grit is Gioachino Rossini.")
    vague = chain(question="Where was the star of True Grit born?", **film)
    clear = chain(question="Where was the star of True Grit, the 1969 film, born?", **film)
    assert outcomes(vague, several)["several_titles"] == "failed"
    assert outcomes(clear, several)["several_titles"] == "passed"


@pytest.mark.parametrize(
    ("bridge", "text"),
    [
        ("During the Korean War", "A treaty ended the Korean War."),
        ("Jason", "Aeson was Jason's father."),
        ("Lower Saxony", "It lies in Germany.Lower Saxony is near."),
        ("Rome; Paris", "Paris is large."),
    ],
)
def test_a_link_may_be_written_otherwise(bridge: str, text: str) -> None:
    linked = chain(**step(0, answer=bridge), **gold(1, text=f"{text} Pesaro."))
    assert outcomes(linked)["unlinked_hop"] == "passed"


@pytest.mark.parametrize(
    ("titles", "text", "expected"),
    [
        (("Lyman Sherwood", "Hoosick, New York"), "He was born in Hoosick.", "passed"),
        (("Dan Lewis (footballer)", "Arsenal F.C."), "He kept goal for Arsenal.", "passed"),
        (("Phil Urban", "Mitchells &amp; Butlers"), "He runs Mitchells & Butlers.", "passed"),
        (("Game 39", "2013–14 Premier League"), "A game outside England.", "failed"),
    ],
)
def test_paragraphs_without_an_official_decomposition_are_linked_by_titles(
    titles: tuple[str, str], text: str, expected: str
) -> None:
    first, second = (supporting(f"p{n}", title, "") for n, title in enumerate(titles, start=1))
    pair = [first.model_copy(update={"text": text}), second.model_copy(update={"text": "The answer is Pesaro."})]
    assert outcomes(question(source="hotpotqa", question_type="bridge", supporting=pair))["unlinked_hop"] == expected


def test_a_comparison_is_no_chain() -> None:
    asked = question(
        question_type="comparison",
        question="Which is older, The Barber of Seville or Gioachino Rossini?",
        answer="Gioachino Rossini",
    )
    said = outcomes(asked)
    assert {check for check, outcome in said.items() if outcome == "void"} == {
        "unlinked_hop",
        "bridge_named",
        "answer_named",
        "answer_in_several",
        "one_paragraph",
        "several_titles",
    }
    assert said["closed_choice"] == "failed"


def test_wording_that_compares_must_name_both_sides() -> None:
    asked = chain(question="What do The Barber of Seville and Gioachino Rossini have in common?")
    assert outcomes(asked)["bridge_named"] == "void"


def test_yes_and_no_are_looked_for_in_no_paragraph() -> None:
    asked = chain(answer="yes", **step(1, answer="yes"))
    assert outcomes(asked)["answer_not_in_gold"] == "void"
    assert is_closed_choice(asked)


def test_the_reason_says_what_was_found() -> None:
    assert reason(chain(**UNLINKED), "unlinked_hop") == "hop 2: 'Gioachino Rossini' is not in 'Pesaro'"


@pytest.mark.parametrize(
    ("last", "found", "expected"),
    [
        (["p2"], ["p2", "x1", "x2", "x3", "p1"], ("failed", "failed")),
        (["p2"], ["p1", "p2"], ("passed", "failed")),
        (["p2"], ["x1", "x2", "x3", "x4", "p1", "p2"], ("passed", "passed")),
        ([], ["p2", "p1"], ("void", "failed")),
    ],
)
def test_what_one_search_tells(last: list[str], found: list[str], expected: tuple[str, str]) -> None:
    signals = search_signals(["p1", "p2"], last, found)
    assert tuple(signal.outcome for signal in signals) == expected

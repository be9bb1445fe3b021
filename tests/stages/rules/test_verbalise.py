from __future__ import annotations

import pytest

from stepsearch_data.stages.rules.verbalise import as_question, fill, references, split_relation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Green >> performer", "Who performed Green?"),
        ("#1 >> spouse", "Who is the spouse of #1?"),
        ("Orange River >> mouth of the watercourse", "Into what does Orange River flow?"),
        ("Acme >> legal form", "What is the legal form of Acme?"),
        ("what is the largest city in #1 by population", "What is the largest city in #1 by population?"),
        ("Where did #1 's train leave #2 ?", "Where did #1's train leave #2?"),
    ],
)
def test_steps_become_questions(text: str, expected: str) -> None:
    assert as_question(text) == expected


def test_a_relation_splits_into_subject_and_name() -> None:
    assert split_relation("Green >> performer") == ("Green", "performer")
    assert split_relation("who sang Green") is None


def test_placeholders_are_filled_with_the_answers_of_their_hops() -> None:
    assert fill("When did #1 and #2 meet #1?", ["Ada", "Bob"], [1, 2]) == "When did Ada and Bob meet Ada?"
    assert references("When did #2 and #1 meet #1?") == [1, 2]


def test_an_answer_with_a_backslash_is_taken_as_it_is() -> None:
    assert fill("#1?", [r"\g<0>"], [1]) == r"\g<0>?"


def test_only_the_named_hops_are_filled_in() -> None:
    assert fill("the #1 hit of #2 and #40", ["Ada", "Bob"], [2]) == "the #1 hit of Bob and #40"

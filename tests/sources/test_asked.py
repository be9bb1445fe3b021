"""Questions that are asked or compared with: any file of questions and answers."""

from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.sources.asked import parse_asked
from stepsearch_data.sources.record import Record
from tests.rows import Row, hotpotqa, jsonl, musique, without


@pytest.mark.parametrize(
    ("row", "answers", "identifier"),
    [
        ({"id": "test_0", "question": "Who?", "golden_answers": ["Ada", "Lovelace"]}, ["Ada", "Lovelace"], "test_0"),
        ({"id": 5, "question": "Who?", "golden_answers": "Ada", "metadata": {"type": "x"}}, ["Ada"], "5"),
        ({"question": "Who?", "golden_answers": '["Ada", "Lovelace"]'}, ["Ada", "Lovelace"], "qa-9"),
        ({"question": "Who?", "golden_answers": "[sic] Ada"}, ["[sic] Ada"], "qa-9"),
        ({"Question": "Who?", "Answer": "Ada"}, ["Ada"], "qa-9"),
        ({"question": "Who?", "answer": "Ada", "answer_aliases": ["Lovelace"]}, ["Ada", "Lovelace"], "qa-9"),
    ],
)
def test_names_and_forms_of_answers(row: Row, answers: list[str], identifier: str) -> None:
    question = parse_asked("qa", Record(9, row))
    assert question
    assert [question.answer, *question.answer_aliases] == answers
    assert (question.question_id, question.question, question.source, question.hops) == (identifier, "Who?", "qa", 0)


@pytest.mark.parametrize("row", [{"question": "Who?"}, {"question": "", "answer": "Ada"}, {"answer": "Ada"}])
def test_a_question_and_an_answer_are_needed(row: Row) -> None:
    with pytest.raises(RowRejected):
        parse_asked("qa", Record(9, row))


FEW: list[tuple[str, Row, Any]] = [
    ("hotpotqa", hotpotqa("a", context=hotpotqa("")["context"][:2]), []),  # as in the fullwiki setting
    ("hotpotqa", without(hotpotqa("a"), "supporting_facts"), []),
    ("musique", without(musique("a"), "question_decomposition"), []),
    ("jsonl", without(jsonl("a"), "paragraphs"), []),
    ("hotpotqa", hotpotqa("a"), ["The Barber of Seville", "Gioachino Rossini"]),
]


@pytest.mark.parametrize(("kind", "row", "gold"), FEW)
def test_gold_paragraphs_are_known_or_not(kind: str, row: Row, gold: list[str]) -> None:
    question = parse_asked(kind, Record(1, row))
    assert question
    assert (question.question_id, question.source, question.answer) == ("a", kind, "Pesaro")
    assert [paragraph.title for paragraph in question.supporting] == gold


def test_what_is_wrong_is_said_of_the_format_that_was_named() -> None:
    with pytest.raises(RowRejected, match="answer: Field required"):
        parse_asked("hotpotqa", Record(1, without(hotpotqa("a"), "answer")))

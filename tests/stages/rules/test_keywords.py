from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.core.text import normalise
from stepsearch_data.schemas.rows import DecompositionStep, Question
from stepsearch_data.stages.rules import decompose, forbidden, leaked, write_queries
from stepsearch_data.stages.rules.keywords import keywords
from tests.builders import question, supporting

STEPS = [
    DecompositionStep(text="The Barber of Seville >> composer", answer="Gioachino Rossini", passage_id="p1"),
    DecompositionStep(text="where was #1 born", answer="Pesaro", passage_id="p2"),
]


def texts(of: Question, hop: int, count: int = 4) -> list[str]:
    hops = decompose(of)
    return [query.query for query in write_queries(of, hops, hops[hop - 1], count)]


def test_a_relation_gives_subject_and_relation_first() -> None:
    assert texts(question(decomposition=STEPS), 1)[:2] == [
        "The Barber of Seville composer",
        "The Barber of Seville",
    ]


def test_later_hops_use_earlier_answers() -> None:
    assert texts(question(decomposition=STEPS), 2)[0] == "Gioachino Rossini born"


def test_queries_are_numbered_distinct_and_as_many_as_asked_for() -> None:
    asked = question(decomposition=STEPS)
    hops = decompose(asked)
    for count in (1, 3, 4):
        queries = write_queries(asked, hops, hops[0], count)
        assert [query.query_id for query in queries] == [f"q1/1/{n}" for n in range(1, count + 1)]
        assert len({normalise(query.query) for query in queries}) == count


def test_matched_words_are_those_of_the_question_that_the_gold_paragraph_holds() -> None:
    paragraphs = [
        supporting("p1", "Seville", "An opera."),
        supporting("p2", "Rossini", "Composer of operas, born in 1792."),
    ]
    asked = question(decomposition=STEPS, supporting=paragraphs)
    hops = decompose(asked)
    by_method = {query.method: query.query for query in write_queries(asked, hops, hops[1], 8)}
    assert by_method["all_matched"] == "Rossini born composer"
    assert by_method["question_matched"] == "composer born"
    assert not any("1792" in query for query in by_method.values())  # a word of the gold paragraph alone


@pytest.mark.parametrize("kind", ["bridge", "comparison"])
def test_even_when_the_answer_is_everywhere_three_queries_remain(kind: str) -> None:
    paragraph = supporting("p1", "Pesaro", "Pesaro is Pesaro.")
    other = supporting("p2", "Rossini of Pesaro", "Rossini of Pesaro was born in Pesaro.")
    asked = question(source="hotpotqa", question_type=kind, supporting=[paragraph, other])
    for hop in (1, 2):
        assert len(texts(asked, hop)) >= 3


WORDS = st.sampled_from(["Rossini", "Pesaro", "born", "in", "opera", "the", "1792", "Seville", "composer", "Gioachino"])
TEXT = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)


@given(asked=TEXT, answers=st.tuples(TEXT, TEXT), titles=st.tuples(TEXT, TEXT), bodies=st.tuples(TEXT, TEXT))
def test_no_query_ever_leaks(
    asked: str, answers: tuple[str, str], titles: tuple[str, str], bodies: tuple[str, str]
) -> None:
    steps = [
        DecompositionStep(text=f"{titles[0]} >> composer", answer=answers[0], passage_id="p1"),
        DecompositionStep(text="where was #1 born", answer=answers[1], passage_id="p2"),
    ]
    row = question(
        question=asked,
        answer=answers[1],
        decomposition=steps,
        supporting=[supporting("p1", titles[0], bodies[0]), supporting("p2", titles[1], bodies[1])],
    )
    hops = decompose(row)
    for hop in hops:
        secrets = forbidden(hops, hop.hop, [row.answer])
        for query in write_queries(row, hops, hop, 8):
            assert not leaked(query.query, asked, secrets)
            assert normalise(query.query)


def test_keywords_drop_stop_words_punctuation_and_possessives() -> None:
    assert keywords('Who was Rossini\'s "first" teacher, in Pesaro?') == ["Rossini", "first", "teacher", "Pesaro"]
    assert keywords("to be or not to be") == []

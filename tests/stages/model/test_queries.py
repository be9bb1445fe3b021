from __future__ import annotations

import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.llm.chat import Reply
from stepsearch_data.schemas.rows import Query
from stepsearch_data.stages.model import load_prompt, write_queries
from stepsearch_data.stages.model.queries import queries_request
from tests.builders import question, sub_question
from tests.stages.model.scripted import SETTINGS, ScriptedModel, wait

PROMPT = load_prompt("queries")
HOPS = [
    sub_question(1),
    sub_question(2, sub_question="Where was Gioachino Rossini born?", sub_answer="Pesaro", depends_on=[1]),
]
GOOD = ["Barber of Seville composer", "opera Barber of Seville written by", "who wrote Barber Seville", "Seville opera"]


def run(model: ScriptedModel, hop: int = 1, count: int = 4) -> list[Query]:
    return wait(write_queries(model, PROMPT, question(), HOPS, HOPS[hop - 1], count, SETTINGS))


def complaint(*queries: str, hop: int = 1) -> str:
    """What the model is told of these queries."""
    model = ScriptedModel({"queries": queries}, RowRejected("enough"))
    with pytest.raises(RowRejected, match="enough"):
        run(model, hop, count=len(queries))
    return model.last_complaint


def test_queries_are_numbered_rows() -> None:
    written = run(ScriptedModel({"queries": GOOD}))
    assert [query.query for query in written] == GOOD
    assert written[1] == Query(query_id="q1/1/2", question_id="q1", hop=1, n=2, query=GOOD[1], method="model")


def test_the_prompt_shows_earlier_answers_and_no_later_one() -> None:
    first, second = (queries_request(PROMPT, question(), HOPS, hop, 4, SETTINGS) for hop in HOPS)
    assert "exactly 4 queries" in first.messages[0].content
    assert "Found so far:\nnothing yet" in first.messages[1].content
    assert "Rossini" not in first.messages[1].content
    assert "- Who composed The Barber of Seville? → Gioachino Rossini" in second.messages[1].content
    assert "Sub-question to search for: Where was Gioachino Rossini born?" in second.messages[1].content
    assert "Pesaro" not in second.messages[1].content


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", "query 2 is empty"),
        (" ?! ", "query 2 is empty"),
        ("The BARBER of Seville, composer", "query 2 says the same as another one: 'Barber of Seville composer'"),
        ("opera " * 40, "query 2 is longer than 200 characters"),
        ("birthplace of #1", "query 2 holds the placeholder #1"),
        ("Gioachino Rossini opera", "query 2 gives away an answer that is yet to be found: 'Gioachino Rossini'"),
        ("opera first given in Pesaro", "query 2 gives away an answer that is yet to be found: 'Pesaro'"),
    ],
)
def test_a_fault_is_named(bad: str, words: str) -> None:
    told = complaint(GOOD[0], bad)
    assert f"- {words}" in told
    assert "- 2 queries are wanted, and 1 of yours can be used" in told


def test_earlier_answers_may_be_said() -> None:
    assert len(run(ScriptedModel({"queries": ["Rossini birthplace", "Gioachino Rossini born"]}), hop=2, count=2)) == 2


def test_a_number_sign_that_the_sub_question_holds_is_no_placeholder() -> None:
    hop = sub_question(1, sub_question="Who sang the #1 hit?")
    queries = {"queries": ["#1 hit singer"]}
    assert wait(write_queries(ScriptedModel(queries), PROMPT, question(), [hop], hop, 1, SETTINGS))


def test_too_few_are_asked_for_again() -> None:
    model = ScriptedModel({"queries": GOOD[:3]}, {"queries": GOOD})
    assert len(run(model)) == 4
    assert "- 4 queries are wanted, and 3 of yours can be used" in model.last_complaint


def test_of_too_many_the_first_good_ones_are_taken() -> None:
    model = ScriptedModel({"queries": ["", *GOOD, "one more"]})
    assert [query.query for query in run(model)] == GOOD
    assert len(model.requests) == 1


def test_three_good_ones_are_better_than_none() -> None:
    model = ScriptedModel({"queries": ["", *GOOD[1:]]}, "no", {"queries": GOOD[:1]})
    assert [(query.n, query.query) for query in run(model)] == [(1, GOOD[1]), (2, GOOD[2]), (3, GOOD[3])]


def test_the_best_reply_counts_even_when_the_provider_refuses_the_next() -> None:
    model = ScriptedModel({"queries": GOOD[:3]}, Reply("", finish_reason="content_filter"))
    assert len(run(model)) == 3


@pytest.mark.parametrize(("count", "good"), [(4, 2), (3, 2), (2, 1)])
def test_fewer_reject_the_row(count: int, good: int) -> None:
    reply = {"queries": GOOD[:good]}
    with pytest.raises(RowRejected, match=f"^{count} queries are wanted, and {good} of yours") as rejected:
        run(ScriptedModel(reply, reply, reply), count=count)
    assert rejected.value.attempts == 3
    assert GOOD[0] in rejected.value.raw

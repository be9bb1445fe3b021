from __future__ import annotations

import pickle

import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.llm.chat import Message, Reply
from stepsearch_data.stages.model.ask import ask
from stepsearch_data.stages.model.replies import Judgement, schema_of
from stepsearch_data.stages.model.structured import Invalid
from tests.stages.model.scripted import SETTINGS, ScriptedModel, wait

REQUEST = SETTINGS.request((Message("system", "s"), Message("user", "u")), Judgement, 0)


def only_good(text: str) -> str:
    if text == "unreadable":
        raise Invalid(["no JSON here"])
    if text != "good":
        raise Invalid([f"{text} is bad", "and silly"])
    return "fine"


def test_settings_and_schema_are_in_the_request() -> None:
    assert (REQUEST.model, REQUEST.temperature, REQUEST.max_tokens, REQUEST.sample) == ("tiny", 0.0, 1024, 0)
    assert REQUEST.schema == schema_of(Judgement)


def test_a_good_reply_needs_one_turn() -> None:
    model = ScriptedModel("good")
    assert wait(ask(model, REQUEST, only_good, 2)) == "fine"
    assert model.requests == [REQUEST]


def test_a_repair_turn_shows_the_reply_and_what_was_wrong_with_it() -> None:
    model = ScriptedModel("evil", "unreadable", "good")
    assert wait(ask(model, REQUEST, only_good, 2)) == "fine"
    assert [len(request.messages) for request in model.requests] == [2, 4, 6]
    assert model.requests[1].messages == (
        *REQUEST.messages,
        Message("assistant", "evil"),
        Message(
            "user",
            "Your reply cannot be used:\n- evil is bad\n- and silly\n\n"
            "Reply again with the complete, corrected JSON object and nothing else.",
        ),
    )
    assert model.requests[2].messages[:4] == model.requests[1].messages
    assert "- no JSON here\n" in model.last_complaint
    assert model.requests[2].schema == REQUEST.schema


@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_after_the_repairs_the_row_is_rejected(repairs: int) -> None:
    model = ScriptedModel(*(f"try {n}" for n in range(1, 9)))
    with pytest.raises(RowRejected, match=rf"^try {repairs + 1} is bad; and silly$") as rejected:
        wait(ask(model, REQUEST, only_good, repairs))
    assert rejected.value.raw == f"try {repairs + 1}"
    assert rejected.value.attempts == len(model.requests) == repairs + 1


def test_a_cut_off_reply_is_asked_for_again_more_briefly() -> None:
    model = ScriptedModel(Reply("good", finish_reason="length"), "good")
    assert wait(ask(model, REQUEST, only_good, 2)) == "fine"
    assert "- the reply was cut off; answer more briefly" in model.last_complaint


@pytest.mark.parametrize(("finish", "words"), [("content_filter", "content filter"), ("refusal", "refused to answer")])
def test_who_will_not_answer_is_not_asked_again(finish: str, words: str) -> None:
    model = ScriptedModel("bad", Reply("I won't", finish_reason=finish), "good")
    with pytest.raises(RowRejected, match=words) as rejected:
        wait(ask(model, REQUEST, only_good, 5))
    assert (rejected.value.raw, rejected.value.attempts) == ("I won't", 2)


def test_an_empty_reply_leaves_no_empty_turn() -> None:
    model = ScriptedModel("", "good")
    wait(ask(model, REQUEST, only_good, 1))
    assert model.requests[1].messages[2] == Message("assistant", "(no answer)")


def test_thoughts_and_bulk_of_a_reply_are_not_sent_back() -> None:
    model = ScriptedModel(f"<think>hm</think>{'x' * 10_000_000}\ud800", "good")
    wait(ask(model, REQUEST, only_good, 1))
    assert model.requests[1].messages[2].content == "x" * 8_000
    assert len(model.last_complaint) < 1_000
    assert len(model.requests[1].digest("here")) == 64


def test_at_most_ten_complaints_are_made() -> None:
    assert Invalid([str(number) for number in range(1000)]).complaints == [str(number) for number in range(10)]


def test_errors_of_the_provider_pass_through() -> None:
    with pytest.raises(RowRejected, match="400"):
        wait(ask(ScriptedModel(RowRejected("400")), REQUEST, only_good, 2))


def test_a_rejection_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(RowRejected("why", raw="what", attempts=3)))
    assert (str(again), again.raw, again.attempts) == ("why", "what", 3)
    assert (RowRejected("why").raw, RowRejected("why").attempts) == ("", 0)


def test_a_repair_turn_that_the_provider_refuses_keeps_the_reply_before() -> None:
    model = ScriptedModel("silly", RowRejected("the server refuses the request (400)"))
    with pytest.raises(RowRejected, match="refuses the request") as caught:
        wait(ask(model, REQUEST, only_good, 2))
    assert (caught.value.raw, caught.value.attempts) == ("silly", 1)

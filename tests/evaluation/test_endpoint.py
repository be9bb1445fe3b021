"""Replies as turns: what servers leave out is put back, what they write too much is left out."""

from __future__ import annotations

import asyncio

import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.evaluation.endpoint import EndpointSampler, turn_of
from stepsearch_data.llm.chat import Message, Reply, Request, TurnRequest, Usage
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.characters import END, decode, encode, in_characters
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.rollout import roll_out
from stepsearch_data.trainer.search_env import Episode, SearchEnv, Task
from stepsearch_data.trainer.stops import STOPS

TASK = Task("q1", "Who?", "Who?\n", ("Ada",))
TWO_TURNS = Limits(max_turns=2)
SHOWN = "<information> Doc 1<## Title: T ##> a </information>"


class Scripted:
    """A `ChatModel` that gives these replies in turn, and keeps what it was asked."""

    def __init__(self, *replies: Reply | RowRejected) -> None:
        self._replies = iter(replies)
        self.asked: list[TurnRequest] = []

    async def complete(self, request: Request) -> Reply:
        assert isinstance(request, TurnRequest)
        self.asked.append(request)
        reply = next(self._replies)
        if isinstance(reply, RowRejected):
            raise reply
        return reply


def play(model: Scripted, limits: Limits = TWO_TURNS, *, raw: bool = False) -> tuple[Episode, EndpointSampler]:
    env = SearchEnv(load_template("musique"), in_characters(limits), encode, decode, frozenset([END]))
    with asyncio.Runner() as runner:
        sampler = EndpointSampler(model, runner, "mock", raw=raw)
        (episode,) = roll_out([TASK], env, sampler, lambda asked, _: [[Paragraph("T", q)] for q in asked])
    return episode, sampler


@pytest.mark.parametrize(
    ("reply", "turn", "ended"),
    [
        (Reply("<search> a "), "<search> a </search>", False),
        (Reply("<think> b </think>\n<answer> a"), "<think> b </think>\n<answer> a</answer>", False),
        (Reply("<search> a <answer> b"), "<search> a <answer> b</answer>", False),
        (Reply("<answer> a </answer> and more"), "<answer> a </answer>", False),
        (Reply("<search> a </search>\n<information>"), "<search> a </search>", False),
        (Reply("<search> a", "length"), "<search> a", False),
        (Reply("I do not know."), "I do not know.", True),
    ],
)
def test_a_reply_is_cut_or_closed_where_its_turn_ends(reply: Reply, turn: str, ended: bool) -> None:
    assert turn_of(reply) == (turn, ended)


def test_a_chat_shows_what_was_found_as_the_users_next_message() -> None:
    model = Scripted(Reply("<search> a"), Reply("<answer> Ada"))
    episode, _ = play(model)
    assert episode.text == f"<search> a</search>\n{SHOWN}\n<answer> Ada</answer>"
    assert (episode.ended, [search.query for search in episode.searches]) == ("answer", ["a"])
    first, second = model.asked
    assert first == TurnRequest("mock", (Message("user", "Who?"),), max_tokens=500, stop=STOPS)
    assert second.messages == (
        Message("user", "Who?"),
        Message("assistant", "<search> a</search>"),
        Message("user", SHOWN),
    )


def test_a_raw_turn_continues_prompt_and_response_letter_for_letter() -> None:
    model = Scripted(Reply("<search> a"), Reply(" <answer> Ada"))
    episode, _ = play(model, raw=True)
    assert [len(request.messages) for request in model.asked] == [1, 1]
    assert f"{model.asked[1].messages[0].content} <answer> Ada</answer>" == TASK.prompt + episode.text


def test_a_chat_that_says_neither_is_warned_and_a_text_that_ends_has_ended() -> None:
    chat, _ = play(Scripted(Reply("Hm."), Reply("<answer> Ada")))
    assert (chat.invalid, chat.ended, chat.text.count("<warning>")) == (1, "answer", 1)
    raw, _ = play(Scripted(Reply("Hm.")), raw=True)
    assert (raw.invalid, raw.ended) == (0, "end of text")


def test_the_last_turn_follows_a_word_that_no_search_is_left() -> None:
    model = Scripted(Reply("<search> a"), Reply("<search> b"), Reply("<search> c"))
    episode, _ = play(model)
    assert (episode.ended, len(episode.searches)) == ("no answer", 2)
    assert "No search is left" in model.asked[2].messages[-1].content


def test_tokens_are_counted_as_the_server_counts_them() -> None:
    _, told = play(Scripted(Reply("<search> a", usage=Usage(9, 7)), Reply("<answer> Ada", usage=Usage(9, 5))))
    _, estimated = play(Scripted(Reply("<answer> Ada")))
    assert (told.spent, estimated.spent) == ([12], [3])


def test_what_a_server_refuses_ends_the_rollout_with_its_reason() -> None:
    episode, sampler = play(Scripted(Reply("<search> a"), RowRejected("too long")))
    assert sampler.refused == {0: "too long"}
    assert episode.ended
    assert len(episode.searches) == 1


def test_a_turn_may_not_be_longer_than_what_is_left() -> None:
    model = Scripted(Reply("<search> a"), Reply("<answer> Ada"))
    play(model, Limits(max_turns=2, max_length=60, max_new_tokens=50))
    read = len(f"Who?\n<search> a</search>\n{SHOWN}\n")
    assert [request.max_tokens for request in model.asked] == [50, (4 * 60 - read) // 4]

"""An episode with calls as a conversation: every reader finds in it what the trainer has rewarded."""

from __future__ import annotations

import json
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from stepsearch_data.evaluation.measure import row_of
from stepsearch_data.evaluation.messages import messages_of
from stepsearch_data.evaluation.policy import Played
from stepsearch_data.rewards import PAPER, REFERENCE, read
from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT
from stepsearch_data.trainer.episode_score import score_episode, score_task
from tests.trainer.families import Family
from tests.trainer.test_forms import CALLS, call, env_of, play

ANSWER = "So it is.\n<answer> Paris </answer>"
WRONG = {
    "broken": {"query": 'broken"'},
    "no arguments": {"key": "given"},
    "another tool": {"name": "browse"},
    "no query": {"query": " "},
}


def texts(family: Family) -> dict[str, str]:
    """Turns, each by its name."""
    wrong = {name: call(family, **given) for name, given in WRONG.items()}
    wrong["broken"] = call(family).replace('"query":', '"query"')
    tags = "<think> a </think><search> capital France </search>"
    return {"search": call(family), "other": call(family, "Rome"), "Hm": "Hm.", "tags": tags, "answer": ANSWER, **wrong}


SCRIPTS = [
    (["search", "answer"], {}),
    (["search", "other", "answer"], {}),
    (["search", "search", "tags", "answer"], {}),
    (["answer"], {}),
    (["Hm", "search", "answer"], {}),
    *((["search", wrong, "answer"], {"max_turns": 2}) for wrong in WRONG),
    *((["search", wrong], {"max_turns": 1}) for wrong in WRONG),
    (["search", "other"], {"max_turns": 1}),
    (["search", "Hm", "other", "answer"], {"max_turns": 3}),
    (["search", "search"], {"max_length": 1}),
]


@CALLS
@pytest.mark.parametrize(("names", "limits"), SCRIPTS, ids=lambda part: "-".join(map(str, part)).replace(" ", "_"))
def test_a_conversation_is_scored_as_the_episode_is(family: Family, names: list[str], limits: dict[str, int]) -> None:
    turns = [texts(family)[name] for name in names]
    if "max_length" in limits:  # the first result fits, the second does not
        episode, _ = play(family, turns)
        limits = {"max_length": len(episode.prompt_ids) + episode.turn_end + 5}
    episode, _ = play(family, turns, **limits)
    env, _ = env_of(family)
    form: Any = env.form
    row = json.loads(json.dumps(row_of(Played(episode, 1, messages=messages_of(episode, form)))))
    rollout = read(row["response"], observations=row["observations"])
    for rewards in (PAPER, REFERENCE):
        assert score_task(rollout, episode.task, rewards) == score_episode(episode, rewards).scores
    assert list(rollout.queries) == episode.asked
    assert [message["role"] == "assistant" for message in row["response"]].count(True) == episode.turns
    assert (row["observations"], row["format_ok"]) == ([], score_episode(episode).scores.format_ok)


@CALLS
def test_its_messages_are_those_of_a_chat_with_calls(family: Family) -> None:
    episode, _ = play(family, [texts(family)[name] for name in ("search", "another tool", "answer")], max_turns=2)
    env, _ = env_of(family)
    form: Any = env.form
    called, shown, wrong, warned, left, answered = messages_of(episode, form)
    (made,) = called["tool_calls"]
    assert called["content"] == ("" if family.kind == "llama3" else "First.")
    assert made["function"] == {"name": "search", "arguments": '{"query": "capital France"}'}
    assert shown == {"role": "tool", "content": episode.searches[0].shown, "tool_call_id": made["id"]}
    assert wrong == {"role": "assistant", "content": texts(family)["another tool"]}
    assert warned == {"role": "user", "content": 'There is no tool "browse". Call search.'}
    assert left == {"role": "user", "content": NO_SEARCH_LEFT}
    assert answered == {"role": "assistant", "content": ANSWER}

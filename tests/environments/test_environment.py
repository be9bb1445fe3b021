"""Rewards while playing: they sum to what `score_rollout` gives the whole, whatever is played."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stepsearch_data as ssd
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.environments import (
    EnvironmentConfig,
    SearchEnvironment,
    SearchResult,
    TaggedEnvironment,
    final_answer,
)
from stepsearch_data.environments.environment import query_of
from stepsearch_data.rewards import Preset, read, read_conversation, score_rollout
from stepsearch_data.rewards.conversation import NO_QUERY, OVER
from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT
from stepsearch_data.trainer.episode_score import score_task
from tests.environments.conftest import GOLD_QUERIES, QUESTION

EXACT = 1e-12
WORDS = ["Barber", "Seville", "composer", "Rossini", "birth", "Pesaro", "river", "Andalusia", "painter", "zzyzx"]
PRESETS: list[Preset] = ["paper", "gain+key", "outcome"]
ASKED = st.one_of(
    st.sampled_from(GOLD_QUERIES),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
    st.just("qqq zzyzx"),  # finds nothing
    st.none(),  # neither a search nor an answer
)


@pytest.mark.long
@settings(max_examples=1_000)
@given(
    st.lists(ASKED, max_size=5),
    st.sampled_from(["Pesaro", "Rossini of Pesaro", "Rome", "", None]),
    st.sampled_from(PRESETS),
)
def test_rewards_of_turns_are_those_of_the_whole_rollout(
    config: EnvironmentConfig,
    tagged_config: EnvironmentConfig,
    played: list[str | None],
    answer: str | None,
    preset: Preset,
) -> None:
    calls = SearchEnvironment(replace(config, preset=preset))
    tags = TaggedEnvironment(replace(tagged_config, preset=preset))
    calls.reset(QUESTION)
    tags.reset(QUESTION)
    for query in played:
        turn = tags.step("<think> hm </think>" if query is None else f"<think> t </think><search> {query} </search>")
        if query is not None:
            assert abs(calls.search(query).reward - turn.reward) < EXACT
    while not tags.episode.ended:  # who does not answer is warned until no turn is left
        tags.step("hm" if answer is None else f"<think> so </think><answer> {answer} </answer>")
    called = calls.answer(answer)

    task = config.task(QUESTION)
    golds = [gold.text for gold in task.support_docs]
    rollout = read(tags.episode.text, tags.config.rewards, tags.episode.observations)
    whole = score_rollout(rollout, task.answers, task.search_keys, golds, tags.config.rewards)
    total = sum(whole.step_rewards) + whole.score
    assert abs(sum(tags.rewards) - total) < EXACT
    assert abs(sum(calls.rewards) - total) < EXACT
    assert called == whole
    assert len(calls.rewards) == sum(query is not None for query in played) + 1
    assert len(tags.rewards) == tags.episode.turns


def test_a_search_shows_documents_and_what_it_earned(config: EnvironmentConfig) -> None:
    environment = SearchEnvironment(config)
    assert environment.reset(QUESTION) == "What is the birthplace of the man who composed The Barber of Seville?"
    first, again = environment.search(GOLD_QUERIES[0]), environment.search(GOLD_QUERIES[0])
    assert first.text.startswith("[1] The Barber of Seville\n")
    assert len(first.documents) == 3
    assert (first.reward, first.penalty) == (first.gain, 0.0)
    assert (again.gain, again.penalty, again.reward) == (0.0, 1.0, -1.0)
    assert environment.answer("Pesaro").answer_em == 1
    assert environment.rewards[:2] == [first.reward, again.reward]


def test_queries_of_many_environments_wait_for_each_other(config: EnvironmentConfig) -> None:
    """Each gets what its own query finds."""
    queries = [*WORDS, *GOLD_QUERIES] * 4

    async def search() -> list[SearchResult]:
        environments = [SearchEnvironment(config) for _ in queries]
        for environment in environments:
            environment.reset(QUESTION)
        asked = zip(environments, queries, strict=True)
        return await asyncio.gather(*(environment.search_async(query) for environment, query in asked))

    alone = []
    for query in queries:
        environment = SearchEnvironment(config)
        environment.reset(QUESTION)
        alone.append(environment.search(query))
    assert asyncio.run(search()) == alone


def test_searches_at_the_same_time_are_no_more_than_are_left(config: EnvironmentConfig) -> None:
    environment = SearchEnvironment(replace(config, max_turns=1))
    environment.reset(QUESTION)

    async def search() -> list[str]:
        found = await asyncio.gather(*(environment.search_async(query) for query in GOLD_QUERIES))
        return [result.text for result in found]

    assert asyncio.run(search())[1] == NO_SEARCH_LEFT
    assert environment.searches_left == 0
    assert len(environment.results) == 1


@pytest.mark.parametrize("begins_another", [True, False])
def test_what_is_found_too_late_earns_nothing(config: EnvironmentConfig, begins_another: bool) -> None:
    environment = SearchEnvironment(config)
    environment.reset(QUESTION)

    async def search() -> str:
        late = asyncio.create_task(environment.search_async(GOLD_QUERIES[0]))
        await asyncio.sleep(0)
        if begins_another:
            environment.reset(QUESTION)
        else:
            environment.answer("Pesaro")
        return (await late).text

    assert asyncio.run(search()) == OVER
    assert not environment.results
    assert environment.searches_left == (5 if begins_another else 0)


def test_what_cannot_be_searched_is_said_and_earns_nothing(config: EnvironmentConfig) -> None:
    environment = SearchEnvironment(replace(config, max_turns=1))
    environment.reset(QUESTION)
    assert environment.search(" ").text == NO_QUERY
    environment.search("Rossini")
    assert environment.search("Rossini").text == NO_SEARCH_LEFT
    environment.answer(None)
    assert environment.search("Rossini").text == OVER
    assert len(environment.rewards) == 2


def test_a_reset_forgets_everything(config: EnvironmentConfig) -> None:
    environment = SearchEnvironment(config)
    rewards = []
    for _ in range(2):
        environment.reset(QUESTION)
        environment.search(GOLD_QUERIES[0])
        environment.answer("Pesaro")
        rewards.append(environment.rewards)
    assert rewards[0] == rewards[1]


def test_searches_that_were_not_shown_earn_nothing(config: EnvironmentConfig) -> None:
    environment, other = SearchEnvironment(config), SearchEnvironment(config)
    environment.reset(QUESTION)
    other.reset(QUESTION)
    for query in GOLD_QUERIES:
        environment.search(query)
    environment.keep(1)
    other.search(GOLD_QUERIES[0])
    assert environment.answer("Pesaro") == other.answer("Pesaro")
    assert environment.rewards == other.rewards


@pytest.mark.parametrize(("answer", "total"), [("Pesaro", None), (None, -1.0)])
def test_a_preset_that_is_settled_at_the_end_says_so_and_pays_then(
    config: EnvironmentConfig, answer: str | None, total: float | None
) -> None:
    """A wrong format forfeits the rewards of all searches."""
    environment = SearchEnvironment(replace(config, preset="reference"))
    environment.reset(QUESTION)
    assert environment.settled_at_end
    found = environment.search(GOLD_QUERIES[0])
    assert found.reward == 0.0 < found.gain
    scores = environment.answer(answer)
    assert environment.rewards == [0.0, total or scores.score + sum(scores.step_rewards)]


def test_an_unknown_question_is_refused(config: EnvironmentConfig) -> None:
    with pytest.raises(ConfigError, match="has no question 'q'"):
        SearchEnvironment(config).reset("q")


def test_an_answer_stands_in_its_tags() -> None:
    assert final_answer("Found it.\n<answer> Pesaro </answer>") == "Pesaro"
    assert final_answer("Pesaro") is None


@pytest.mark.parametrize("max_turns", [1, 5])
def test_the_conversation_of_a_rollout_is_scored_alike(max_turns: int, config: EnvironmentConfig) -> None:
    """Calls that were refused are no searches."""
    environment = SearchEnvironment(replace(config, max_turns=max_turns))
    environment.reset(QUESTION)
    messages: list[dict[str, Any]] = []
    for query in (*GOLD_QUERIES, GOLD_QUERIES[0], " ", "qqq zzyzx"):
        function = {"name": "search", "arguments": {"query": query}}
        messages.append({"role": "assistant", "tool_calls": [{"type": "function", "function": function}]})
        messages.append({"role": "tool", "content": environment.search(query).text})
    messages.append({"role": "assistant", "content": "<answer> Pesaro </answer>"})
    scores = environment.answer("Pesaro")
    assert score_task(read_conversation(messages), environment.task) == scores
    task = environment.task
    golds = [{"title": gold.title, "paragraph_text": gold.text} for gold in task.support_docs]
    row = {"messages": messages, "target": task.answers, "search_keys": task.search_keys, "support_docs": golds}
    assert ssd.score([row])["step_rewards"].to_pylist() == [scores.step_rewards]


def test_the_conversation_of_a_rollout_in_tags_is_scored_alike(tagged_config: EnvironmentConfig) -> None:
    environment = TaggedEnvironment(tagged_config)
    messages = [{"role": "user", "content": environment.reset(QUESTION)}]
    made_up = "<information> Pesaro is in Italy. </information>"
    for end in (*(f"<search> {query} </search>" for query in GOLD_QUERIES), "<answer> Pesaro </answer>"):
        text = f"<think> {made_up} </think>\n{end}"
        turn = environment.step(text)
        messages.append({"role": "assistant", "content": text})
        messages += [] if turn.done else [{"role": "user", "content": turn.observation}]
    assert score_task(read(messages), environment.episode.task) == environment.scores
    assert sum(environment.scores.step_rewards) > 0


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ({"query": "a river"}, "a river"),
        ({"query": ["a river", "a town"]}, "a river"),
        ({"query": None}, ""),
        ({"query": []}, ""),
        ({"query": {"a": "river"}}, ""),
        ({"query": 5}, ""),
        ({"words": "a river"}, ""),
        (["a river"], ""),
        (None, ""),
    ],
    ids=repr,
)
def test_a_query_is_read_from_the_arguments_of_a_call(config: EnvironmentConfig, arguments: Any, query: str) -> None:
    assert query_of(config, arguments) == query

"""Turns of text: what comes back, and when it ends. Rewards are in test_environment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.environments import EnvironmentConfig, TaggedEnvironment
from tests.environments.conftest import GOLD_QUERIES, QUESTION

SEARCH = f"<think> t </think>\n<search> {GOLD_QUERIES[0]} </search>"


def test_a_search_is_shown_its_documents(tagged_config: EnvironmentConfig) -> None:
    environment = TaggedEnvironment(tagged_config)
    environment.reset(QUESTION)
    turn = environment.step(f"{SEARCH}<information> made up </information>")
    assert turn.observation.startswith("\n<information> Doc 1<## Title: The Barber of Seville ##>")
    assert "made up" not in environment.episode.text
    assert turn.reward > 0
    assert not turn.done


def test_an_answer_ends_the_rollout(tagged_config: EnvironmentConfig) -> None:
    environment = TaggedEnvironment(tagged_config)
    environment.reset(QUESTION)
    environment.step(SEARCH)
    turn = environment.step("<think> so </think><answer> Pesaro </answer>")
    assert (turn.observation, turn.done) == ("", True)
    assert turn.reward == pytest.approx(environment.scores.score, abs=1e-12)
    assert turn.reward > 1
    assert environment.episode.ended == "answer"
    earned = sum(environment.rewards)
    assert environment.step(SEARCH) == ("", 0.0, True)
    assert sum(environment.rewards) == earned == sum(environment.scores.step_rewards) + environment.scores.score


def test_the_last_turn_is_announced_and_ends_it(tagged_config: EnvironmentConfig) -> None:
    environment = TaggedEnvironment(replace(tagged_config, max_turns=1))
    environment.reset(QUESTION)
    assert "No search is left" in environment.step(SEARCH).observation
    assert environment.step(SEARCH).done


def test_a_preset_that_is_settled_at_the_end_pays_in_the_last_turn(tagged_config: EnvironmentConfig) -> None:
    environment = TaggedEnvironment(replace(tagged_config, preset="reference"))
    environment.reset(QUESTION)
    assert environment.step(SEARCH).reward == 0
    turn = environment.step("<think> so </think><answer> Pesaro </answer>")
    assert turn.reward == sum(environment.scores.step_rewards) + environment.scores.score


def test_a_template_that_calls_tools_is_refused(config: EnvironmentConfig) -> None:
    with pytest.raises(ConfigError, match="calls a tool"):
        TaggedEnvironment(config)

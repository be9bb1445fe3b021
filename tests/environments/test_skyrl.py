"""SkyRL-Gym makes and plays the environment: each step has the reward of its turn."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path

import pytest

from stepsearch_data.environments import EnvironmentConfig, TaggedEnvironment
from stepsearch_data.exports.rl import skyrl
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.data import load_examples
from tests.environments.conftest import GOLD_QUERIES, QUESTION

if importlib.util.find_spec("skyrl_gym") is None:
    pytest.skip("needs skyrl-gym: make test-environments installs it", allow_module_level=True)

import skyrl_gym

TURNS = [
    f"<think> t </think>\n<search> {GOLD_QUERIES[0]} </search>",
    "hm",
    f"<think> t </think>\n<search> {GOLD_QUERIES[1]} </search>",
    "<think> so </think>\n<answer> Pesaro </answer>",
]


def test_every_step_has_the_reward_of_its_turn(tagged_config: EnvironmentConfig) -> None:
    examples = load_examples(Store.open(Path(tagged_config.store)), None)
    example = next(each for each in examples if each.question_id == QUESTION)
    (row,) = skyrl(example, load_template("musique"))
    entry_point = "stepsearch_data.environments.skyrl:SearchEnv"
    skyrl_gym.register(id=row["env_class"], entry_point=entry_point, kwargs=asdict(tagged_config))
    extras = {name: value for name, value in row.items() if name not in {"prompt", "env_class"}}
    made = skyrl_gym.make(row["env_class"], env_config=None, extras=extras)
    assert made.init(row["prompt"]) == (row["prompt"], {})
    steps = [made.step(turn) for turn in TURNS]

    played = TaggedEnvironment(tagged_config)
    played.reset(QUESTION)
    expected = [played.step(turn) for turn in TURNS]
    assert [step["reward"] for step in steps] == [turn.reward for turn in expected]
    assert [step["done"] for step in steps] == [False, False, False, True]
    assert [message["content"] for step in steps for message in step["observations"]] == [
        turn.observation for turn in expected[:-1]
    ]
    assert made.get_metrics()["answer_em"] == 1
    assert made.get_metrics()["searches"] == 2

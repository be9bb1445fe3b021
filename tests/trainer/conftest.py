"""A model of a few thousand weights. What needs torch imports it when it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.exports.template import Template
from stepsearch_data.exports.template_file import load_template
from stepsearch_data.trainer.episode import Limits, Referee
from tests.trainer.tiny import TASKS


@pytest.fixture(scope="session")
def template() -> Template:
    return load_template("musique")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from stepsearch_data.trainer.demo.tiny import make_tokenizer

    said = "<think> <search> </search> <answer> </answer> </think> <information> </information> <warning> </warning>"
    return make_tokenizer([said, *(f" {task.prompt} {task.golds[0].text}" for task in TASKS)] * 2)


@pytest.fixture
def policy(tokenizer: Any) -> Any:
    import torch

    from stepsearch_data.trainer.demo.tiny import make_model

    torch.set_num_threads(1)
    return make_model(tokenizer, width=16, layers=2, seed=1)


@pytest.fixture
def referee(tokenizer: Any, policy: Any, template: Template) -> Referee:
    from stepsearch_data.trainer.launch import make_referee

    limits = Limits(turns=3, documents=2, total=300, turn=12, observation=60)
    return make_referee(policy, tokenizer, template, limits)

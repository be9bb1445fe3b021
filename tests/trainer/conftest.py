"""A model of a few thousand weights. What needs torch imports it when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.synth import WorldConfig, write_world
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.search_env import SearchEnv
from tests.conftest import run_cli
from tests.trainer.tiny import TASKS


@pytest.fixture(scope="session")
def template() -> Template:
    return load_template("musique")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from stepsearch_data.trainer.demo.tiny import make_tokenizer

    said = "<think> <search> </search> <answer> </answer> </think> <information> </information> <warning> </warning>"
    return make_tokenizer([said, *(f" {task.prompt} {task.support_docs[0].text}" for task in TASKS)] * 2)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little world, with one document a search."""
    folder = tmp_path_factory.mktemp("world")
    write_world(WorldConfig(20, 100, 1, 6, 1), folder / "world.jsonl")
    source = ("--source", f"musique={folder / 'world.jsonl'}", "--set", "trajectories.documents=1")
    built = run_cli("build", "--store", folder / "store", *source, "--set", "quality.validation=0", "--quiet")
    assert built.returncode in {0, 3}, built.stderr
    return folder / "store"


@pytest.fixture
def policy(tokenizer: Any) -> Any:
    import torch

    from stepsearch_data.trainer.demo.tiny import make_model

    torch.set_num_threads(1)
    return make_model(tokenizer, width=16, layers=2, seed=1)


@pytest.fixture
def env(tokenizer: Any, policy: Any, template: Template) -> SearchEnv:
    from stepsearch_data.trainer.loading import make_search_env

    limits = Limits(max_turns=3, topk=2, max_length=300, max_new_tokens=12, max_obs_length=60)
    return make_search_env(policy, tokenizer, template, limits)

"""What is played, and rows of trainers as tasks."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data import environments
from stepsearch_data.core.errors import ConfigError, RowRejected
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment, task_of
from stepsearch_data.exports.rl import trl_grpo, verl
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.data import load_examples
from tests.environments.conftest import GOLD_QUERIES, QUESTION


def test_rows_of_exports_are_tasks(sample_store: Path, config: EnvironmentConfig) -> None:
    template = load_template("tools")
    for example in load_examples(Store.open(sample_store), "train"):
        ours = config.tasks()[example.question_id]
        for form in (trl_grpo, verl):
            task = task_of(form(example, template)[0])
            assert (task.answers, task.search_keys) == (ours.answers, ours.search_keys)
            assert [gold.text for gold in task.support_docs] == [gold.text for gold in ours.support_docs]


def test_a_row_without_answers_is_no_task() -> None:
    with pytest.raises(RowRejected, match="target"):
        task_of({"question": "Who?"})


def test_the_questions_of_a_split_are_complete_and_passed(config: EnvironmentConfig) -> None:
    assert len(config.tasks()) == 69
    assert config.tasks("train").keys() | config.tasks("validation").keys() == config.tasks().keys()


def test_settings_of_a_file_make_a_config() -> None:
    config = EnvironmentConfig.of(store="s", preset="gain+key", switches=["key_weight=1"], topk=2)
    assert config.rewards.key_weight == 1
    assert not config.rewards.redundancy_penalty
    with pytest.raises(ConfigError, match="no setting typo"):
        EnvironmentConfig.of(typo=1)
    with pytest.raises(ConfigError, match="preset"):
        EnvironmentConfig.of(preset="papr")
    with pytest.raises(ConfigError, match="max_turns"):
        EnvironmentConfig.of(max_turns="many")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("topk", 0, "topk"),
        ("topk", -1, "topk"),
        ("topk", 10**12, "topk"),
        ("max_turns", -1, "max_turns"),
        ("max_length", 0, "max_length"),
        ("switches", ["key_wait=1"], "key_wait"),
    ],
)
def test_a_setting_that_cannot_be_played_is_refused(name: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        EnvironmentConfig.of(**{name: value})


def test_a_tool_is_named_once() -> None:
    with pytest.raises(ConfigError, match="open is named twice"):
        SearchEnvironment(EnvironmentConfig(tools=("open", "find", "open")))


def test_a_list_of_settings_is_as_good_as_a_tuple(config: EnvironmentConfig) -> None:
    settings: Any = ["engines.bm25.workers=1"]
    assert hash(replace(config, settings=settings)) == hash(replace(config, settings=tuple(settings)))


def test_an_environment_needs_no_torch() -> None:
    code = "import sys, stepsearch_data.environments.retriever; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_environment_can_be_pickled_while_it_is_played(config: EnvironmentConfig) -> None:
    environment = SearchEnvironment(config)
    environment.reset(QUESTION)
    environment.search(GOLD_QUERIES[0])
    sent = pickle.loads(pickle.dumps(environment))
    assert sent.search(GOLD_QUERIES[1]) == environment.search(GOLD_QUERIES[1])


def test_the_harness_of_verifiers_has_each_setting_with_its_default() -> None:
    """Read as text, because verifiers is not installed here."""
    module = ast.parse((Path(environments.__file__).parent / "verifiers.py").read_text())
    (harness,) = (each for each in module.body if isinstance(each, ast.ClassDef) and each.name == "SearchHarnessConfig")
    settings = [each for each in harness.body if isinstance(each, ast.AnnAssign)]
    assert [each.target.id for each in settings if isinstance(each.target, ast.Name)] == [
        field.name for field in fields(EnvironmentConfig)
    ]
    defaults = [each.value.value if isinstance(each.value, ast.Constant) else () for each in settings]
    assert defaults == [field.default for field in fields(EnvironmentConfig)]

"""A training from Python."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from transformers import TrainerCallback

import stepsearch_data.trainer
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer import Schedule, StePPO
from stepsearch_data.trainer.data import demonstration, load_examples
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer
from tests.trainer.processes import ROOT
from tests.trainer.test_steppo_trainer import metrics
from tests.trainer.tiny import retrieve


@pytest.fixture(scope="module")
def folder(sample_store: Path, template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's store, and a tiny model with a tokenizer of its words."""
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("python")
    shutil.copytree(sample_store, made / "store")
    examples = load_examples(Store.open(made / "store"), None)
    tokenizer = make_tokenizer(text for each in examples for text, _ in demonstration(each, template))
    make_model(tokenizer, width=16, layers=2).save_pretrained(made / "start")
    tokenizer.save_pretrained(made / "start")
    return made


def test_the_example_of_the_documentation_trains(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands there, in fifteen lines; and goes on, as it says."""
    monkeypatch.chdir(folder)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 15
    known: dict[str, Any] = {}
    exec(block, known)
    assert capsys.readouterr().out == f"{folder / 'runs' / 'python' / 'checkpoint-000004'}\n"
    rows = metrics(folder / "runs" / "python")
    assert [row["update"] for row in rows if "eval_em" in row] == [0, 2, 4]
    known["steppo"].train(resume=True, progress=False)
    assert metrics(folder / "runs" / "python") == rows
    assert json.loads((folder / "runs" / "python" / "recipe.json").read_text())["held_out"] == 4


class Stop(TrainerCallback):
    """Ends a training after the second update, and has the first one saved and evaluated."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - as transformers names them
        control.should_save = control.should_evaluate = state.global_step == 1
        control.should_training_stop = state.global_step == 2


def test_what_callbacks_wish_is_done(folder: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    sizes = {"ppo": {"mini_batch_size": 2, "micro_batch_size": 2}, "limits": {"max_turns": 1, "max_new_tokens": 4}}
    schedule = Schedule(num_updates=9, rollout_batch_size=2, eval_steps=5)
    callbacks = [Stop(), lambda told, *_: seen.append(told["update"])]
    start, store = folder / "start", folder / "store"
    steppo = StePPO(
        start, store, retrieve, tmp_path / "run", schedule=schedule, held_out=2, callbacks=callbacks, **sizes
    )
    assert steppo.train(progress=False) == tmp_path / "run" / "checkpoint-000002"
    assert seen == [0, 1, 2]
    assert [row["update"] for row in metrics(tmp_path / "run") if "eval_em" in row] == [0, 1]
    assert (tmp_path / "run" / "checkpoint-000001").is_dir()


def test_it_trains_in_a_thread(folder: Path, tmp_path: Path) -> None:
    """As a notebook's server or an actor runs it, where Python takes no handlers of signals."""
    sizes: dict[str, Any] = {
        "ppo": {"mini_batch_size": 2, "micro_batch_size": 2},
        "limits": {"max_turns": 1, "max_new_tokens": 4},
    }
    schedule = Schedule(num_updates=2, rollout_batch_size=2, eval_steps=0)

    def train(output: Path) -> Path:
        steppo = StePPO(folder / "start", folder / "store", retrieve, output, schedule=schedule, **sizes)
        return steppo.train(progress=False)

    with ThreadPoolExecutor(1) as other:
        last = other.submit(train, tmp_path / "thread").result()
    assert last == tmp_path / "thread" / "checkpoint-000002"
    train(tmp_path / "main")
    assert metrics(tmp_path / "thread") == metrics(tmp_path / "main")


@pytest.mark.parametrize(
    "settings",
    [
        {"ppo": {"clip": 0.2}},
        {"schedule": {"num_updates": -1}},
        {"schedule": Schedule(num_updates=-1)},
        {"schedule": Schedule(learning_rate=float("nan"))},
        {"model": {"path": "other"}},
        {"epochs": 3},
    ],
)
def test_wrong_settings_are_refused_at_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError,
        match=r"ppo\.clip is unknown|schedule\.num_updates|schedule\.learning_rate|model\.path is set twice|epochs",
    ):
        StePPO("start", "store", retrieve, tmp_path / "run", **settings)


def test_what_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute PPO"):
        _ = stepsearch_data.trainer.PPO
    for name in stepsearch_data.trainer.__all__:
        assert getattr(stepsearch_data.trainer, name).__name__ == name

"""Callbacks of `transformers` are told what its own trainer would tell them, and are obeyed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from accelerate import Accelerator
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl

from stepsearch_data.trainer.callbacks.events import Events
from stepsearch_data.trainer.config import Schedule
from stepsearch_data.trainer.run_folder import Best


class Watcher(TrainerCallback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **more: Any) -> None:  # noqa: ARG002 - as transformers names them
        self.told.append((args.max_steps, state.global_step, logs, more["episodes"], more["model"]))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:  # noqa: ARG002 - as transformers names them
        self.told.append(metrics)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> TrainerControl:  # noqa: ARG002 - as transformers names them
        control.should_evaluate = control.should_save = state.global_step == 1
        return TrainerControl(should_evaluate=control.should_evaluate, should_save=control.should_save)


def events(output: Path, *callbacks: object, evaluations: tuple[Best, ...] = ()) -> Events:
    made = Events(Schedule(num_updates=9), output, Accelerator(cpu=True), model="the policy")
    made.begin(callbacks, 0, evaluations)
    return made


def test_a_callback_is_told_of_an_update_and_of_what_is_held_out(tmp_path: Path) -> None:
    watcher = Watcher()
    made = events(tmp_path, lambda *_: None, watcher)
    assert made.callbacks == [watcher]  # functions are told elsewhere
    made.begin_step()
    made.end_step(1)
    assert made.wish("should_evaluate")
    assert made.wish("should_save")
    assert not made.wish("should_training_stop")
    metrics = {"update": 1.0, "reward": 0.5, "eval_em": 0.25}
    made.report(metrics, [], [])
    assert watcher.told == [(9, 1, metrics, [], "the policy"), {"eval_em": 0.25}]
    assert made.state.log_history == [{**metrics, "step": 1}]
    best = (made.state.best_metric, made.state.best_global_step, made.state.best_model_checkpoint)
    assert best == (0.25, 1, str(tmp_path / "checkpoint-000001"))
    made.begin_step()
    assert not made.wish("should_evaluate")


def test_the_early_stop_of_transformers_ends_a_training(tmp_path: Path) -> None:
    """It asks for a metric to go by, and counts from the best of all evaluations, also of earlier processes'."""
    made = events(tmp_path, EarlyStoppingCallback(2), evaluations=(Best(update=0, eval_em=0.5),))
    for update, em, over in ((1, 0.4, False), (2, 0.6, False), (3, 0.6, False), (4, 0.1, True)):
        made.report({"update": update, "eval_em": em}, [], [])
        assert made.wish("should_training_stop") is over

"""Callbacks of `transformers`, told what happens in the words of its own trainer. A step is an update here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import IntervalStrategy

from stepsearch_data.trainer.config import Schedule
from stepsearch_data.trainer.episode_score import EpisodeScore
from stepsearch_data.trainer.run_folder import Best, checkpoint_name
from stepsearch_data.trainer.search_env import Episode

Wish = Literal["should_training_stop", "should_evaluate", "should_save"]
_BY = "eval_em"


class Events:
    """Tells callbacks what happens, on every process. What one of them wishes on one process is done on all.

    Their `args` has what a training here has of `TrainingArguments`. `on_log` gets `episodes` and `scores` too.
    """

    def __init__(self, schedule: Schedule, output: Path, accelerator: Accelerator, **told: Any) -> None:
        self.callbacks: list[TrainerCallback] = []
        self._accelerator, self._output, self._told = accelerator, output, told
        same = {
            "max_steps": schedule.num_updates,
            "logging_steps": 1,
            "eval_steps": schedule.eval_steps,
            "save_steps": schedule.save_steps,
        }
        self.control, self.state = TrainerControl(), TrainerState(**same)
        self.state.is_local_process_zero = accelerator.is_local_main_process
        self.state.is_world_process_zero = accelerator.is_main_process
        self.args = SimpleNamespace(
            **same,
            output_dir=str(output),
            logging_dir=str(output),
            run_name=output.name,
            save_total_limit=schedule.save_total_limit,
            learning_rate=schedule.learning_rate,
            seed=schedule.seed,
            train_batch_size=schedule.rollout_batch_size,
            eval_strategy=IntervalStrategy.STEPS if schedule.eval_steps else IntervalStrategy.NO,
            metric_for_best_model=_BY,
            greater_is_better=True,
            load_best_model_at_end=False,
            process_index=accelerator.process_index,
            world_size=accelerator.num_processes,
            disable_tqdm=True,
        )

    def begin(self, callbacks: Iterable[object], update: int, evaluations: Sequence[Best]) -> None:
        """Begin a training after an update, with those that are callbacks of `transformers`."""
        self.callbacks = [each for each in callbacks if isinstance(each, TrainerCallback)]
        self.state.global_step, self.control.should_training_stop = update, False
        for each in evaluations:
            self._remember(each.update, each.eval_em)
        self.tell("on_train_begin")

    def begin_step(self) -> None:
        """Begin an update; what callbacks wished of the last one is forgotten."""
        self.control.should_evaluate = self.control.should_save = False
        self.tell("on_step_begin")

    def end_step(self, update: int) -> None:
        """End an update, before it is evaluated."""
        self.state.global_step = update
        self.tell("on_step_end")

    def report(self, metrics: Mapping[str, float], episodes: Sequence[Episode], scored: Sequence[EpisodeScore]) -> None:
        """Tell of an update's metrics, and apart of those that are held out."""
        self.state.log_history.append({**metrics, "step": int(metrics["update"])})
        self.tell("on_log", logs={**metrics}, episodes=episodes, scores=scored)
        held_out = {name: value for name, value in metrics.items() if name.startswith("eval_")}
        if held_out:
            self.tell("on_evaluate", metrics=held_out)
            self._remember(int(metrics["update"]), held_out[_BY])

    def tell(self, event: str, **told: Any) -> None:
        """Tell every callback, in their order. Each may return another control."""
        for callback in self.callbacks:
            changed = getattr(callback, event)(self.args, self.state, self.control, **self._told, **told)
            self.control = changed or self.control

    def wish(self, name: Wish) -> bool:
        """Tell whether a callback of any process wishes this. Every process must ask."""
        wished: bool = getattr(self.control, name)
        if not self.callbacks or self._accelerator.num_processes == 1:
            return wished
        wishes = torch.tensor(float(wished), device=self._accelerator.device)
        return bool(self._accelerator.reduce(wishes, reduction="sum").item())

    def _remember(self, update: int, value: float) -> None:
        if self.state.best_metric is None or value > self.state.best_metric:
            self.state.best_metric, self.state.best_global_step = value, update
            self.state.best_model_checkpoint = str(self._output / checkpoint_name(update)) if update else None

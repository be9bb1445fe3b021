"""A training from Python: what a recipe and `train` do, with callbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.core.validation import in_words
from stepsearch_data.trainer.recipe import Recipe
from stepsearch_data.trainer.rollout import Retrieve
from stepsearch_data.trainer.start import require_torch, restore_interrupts

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from stepsearch_data.trainer.callbacks import Callback

AnyPath = str | PathLike[str]


class StePPO:
    """Trains a policy on the questions of a store with StePPO.

    `policy` is the folder of a model with its tokenizer, or its name on the Hub; resuming and evaluating read it again.
    `retrieve` takes queries and a number, and returns at most so many `Paragraph`s for each, best first;
    `ssd.Store.retriever` makes one of a store's engine. `settings` are those of a recipe by their names: `schedule`,
    `ppo`, `limits`, `rewards`, `sft`, `held_out`, `template`, `bf16` and so on, sections as their classes or as dicts;
    `model` may have all but `path`.

    Callbacks are `transformers.TrainerCallback`s, for which a step is an update, or functions of an update's metrics,
    episodes and scores. Raises ConfigError for an unknown or wrong setting.
    """

    def __init__(
        self,
        policy: AnyPath,
        store: AnyPath,
        retrieve: Retrieve,
        output: AnyPath,
        *,
        callbacks: Sequence[TrainerCallback | Callback] = (),
        model: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if "path" in (model or {}):
            raise ConfigError("model.path is set twice", "leave it out: `policy` names the model")
        # Dataclasses are validated only where they are given as dicts.
        for name, value in settings.items():
            if is_dataclass(value) and not isinstance(value, type):
                settings[name] = asdict(value)
        named = {"store": Path(store), "output": Path(output), "model": {**(model or {}), "path": str(policy)}}
        try:
            self.recipe = Recipe.model_validate({**settings, **named})
        except ValidationError as error:
            raise ConfigError(in_words(error), "docs/training.md has the settings") from None
        self.retrieve, self.callbacks = retrieve, callbacks

    def train(self, *, resume: bool = False, progress: bool = True) -> Path:
        """Train to the end; return the folder of the last checkpoint. `resume` continues from the newest one.

        Raises TrainError, ConfigError, StoreError, SearchError; what was reached is in the last checkpoint.
        """
        with require_torch():
            from stepsearch_data.trainer.launch import launch
        restore_interrupts()
        say, console = Reporter(quiet=not progress).line, Console(stderr=True, quiet=not progress)
        return launch(self.recipe, self.retrieve, resume=resume, say=say, console=console, callbacks=self.callbacks)

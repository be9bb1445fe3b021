"""Rollouts of the next batch while this one is learnt: the policy that samples is one update behind.

What it wrote is learnt with its own log-probabilities as the old ones of PPO's ratio (`compute_advantages`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from pydantic import TypeAdapter
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepsearch_data.core.errors import SearchError
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.distributed import failing_together
from stepsearch_data.trainer.rollout import ReportsLogps, Retrieve
from stepsearch_data.trainer.sampler import ReportingSampler
from stepsearch_data.trainer.search_env import Episode

_EPISODES = TypeAdapter(list[Episode])


@runtime_checkable
class TakesWeights(ReportsLogps, Protocol):
    """A sampler with weights of its own, so that those of the policy may change while it writes."""

    seed: Sequence[int]

    def take_weights(self) -> None:
        """Take the policy's weights for the next batch."""


class CopySampler(ReportingSampler):
    """See `TakesWeights`. It samples from a copy of the policy, in this process."""

    def __init__(self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any) -> None:
        own = copy.deepcopy(policy).eval().requires_grad_(requires_grad=False)
        super().__init__(own, tokenizer, **options)
        self._policy = policy

    @torch.no_grad()
    def take_weights(self) -> None:
        """See `TakesWeights.take_weights`."""
        for own, now in zip(self._model.parameters(), self._policy.parameters(), strict=True):
            own.copy_(now)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the other thread has a stream of its own


class Ahead:
    """The batch that is rolled out in another thread, or has been: this process's part of it."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._thread, self._over = ThreadPoolExecutor(1, "rollouts"), Event()
        self._update, self._episodes = -1, Future[list[Episode]]()

    def begin(self, update: int, play: Callable[[], list[Episode]]) -> None:
        """Have the batch of an update be rolled out."""
        self._update, self._episodes = update, self._thread.submit(self._on_own_stream, play)

    def has(self, update: int) -> bool:
        """Tell whether it is this update's batch that was begun."""
        return self._update == update

    def take(self) -> list[Episode]:
        """Wait for the batch, which is then gone. What its rollouts raise is raised in all processes, which call it."""
        with failing_together(self._accelerator):
            episodes = self._episodes.result()
        self._update = -1
        return episodes

    @property
    def is_running(self) -> bool:
        """Tell whether a batch is being rolled out."""
        return self._update >= 0 and not self._episodes.done()

    def until_end(self, retrieve: Retrieve) -> Retrieve:
        """Have a retriever raise SearchError once `end` was called."""
        over = self._over

        def search(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
            if over.is_set():
                raise SearchError("the training has ended")
            return retrieve(queries, k)

        return search

    def end(self) -> None:
        """Have the batch that is being rolled out end with its next search, and wait for it."""
        self._over.set()
        self._thread.shutdown()
        self._thread, self._over = ThreadPoolExecutor(1, "rollouts"), Event()

    def save(self, folder: Path) -> None:
        """Wait for the batch, and write it beside a checkpoint; nothing where it failed: it is rolled out again."""
        if self._update >= 0 and not self._episodes.exception():
            kept = {"update": self._update, "episodes": [asdict(each) for each in self._episodes.result()]}
            self._file(folder).write_text(json.dumps(kept), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take what `save` wrote, if it is there for all processes, which all call it."""
        file, device = self._file(folder), self._accelerator.device
        found = self._accelerator.reduce(torch.tensor(float(file.is_file()), device=device), reduction="sum")
        if found == self._accelerator.num_processes:
            kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            self._update, self._episodes = kept["update"], Future[list[Episode]]()
            self._episodes.set_result(_EPISODES.validate_python(kept["episodes"]))

    def _file(self, folder: Path) -> Path:
        """Return the file of a checkpoint that holds this process's part of the batch."""
        return folder / f"ahead-{self._accelerator.process_index}-of-{self._accelerator.num_processes}.json"

    def _on_own_stream(self, play: Callable[[], list[Episode]]) -> list[Episode]:
        device = self._accelerator.device  # a new thread would take the first GPU
        with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
            return play()

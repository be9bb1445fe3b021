"""A checkpoint as a policy to evaluate: a `transformers` model of this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from stepsearch_data.core.errors import TrainError
from stepsearch_data.evaluation.messages import messages_of
from stepsearch_data.evaluation.policy import Played
from stepsearch_data.evaluation.weights import Weights
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.architecture import check_architecture
from stepsearch_data.trainer.config import Chat, Limits
from stepsearch_data.trainer.forms import ToolCalls
from stepsearch_data.trainer.loading import load_model, load_tokenizer, make_search_env
from stepsearch_data.trainer.rollout import Retrieve, roll_out
from stepsearch_data.trainer.sampler import CachedSampler
from stepsearch_data.trainer.search_env import Task

_APART = 1_000_003  # seeds of a question's samples, more than there are batches


class LocalPolicy:
    """See `Policy`. It is played in the form of its template and its `chat` (`trainer.forms`).

    The model's own limit on the length of a text holds too. Raises TrainError, ConfigError for a form that it does not
    have.
    """

    def __init__(
        self,
        weights: Weights,
        template: Template,
        limits: Limits,
        *,
        chat: Chat,
        batch: int,
        temperature: float,
        seed: int,
    ) -> None:
        where = (weights.location, weights.revision)
        model, tokenizer = load_model(*where), load_tokenizer(*where)
        model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        check_architecture(model, tokenizer)
        longest = getattr(model.config, "max_position_embeddings", limits.max_length)
        limits = replace(limits, max_length=min(limits.max_length, longest))
        self.batch = batch
        self._env = make_search_env(model, tokenizer, template, limits, chat)
        self._sampler = CachedSampler(model, tokenizer, temperature=temperature, stops=self._env.form.stops)
        self._seed = seed
        self._played = self._written = 0
        self._seconds = 0.0

    def play(self, tasks: Sequence[Task], retrieve: Retrieve) -> list[Played]:
        """See `Policy.play`."""
        # More samples of the same prompts, in a run that goes on, must not be those that were drawn before.
        torch.manual_seed(self._seed + self._played + _APART * (tasks[0].sample - 1))
        begun = time.perf_counter()
        try:
            episodes = roll_out(tasks, self._env, self._sampler, retrieve)
        except torch.OutOfMemoryError as error:
            raise TrainError(
                f"the device's memory does not hold {len(tasks)} rollouts at once",
                "fewer with --batch, or shorter ones with --max-tokens; the same command goes on",
            ) from error
        self._seconds += time.perf_counter() - begun
        self._played += len(tasks)
        form = self._env.form
        said = [messages_of(each, form) if isinstance(form, ToolCalls) else None for each in episodes]
        played = [Played(each, sum(each.response_mask), "", told) for each, told in zip(episodes, said, strict=True)]
        self._written += sum(each.own_tokens for each in played)
        return played

    def describe(self) -> str:
        """See `Policy.describe`."""
        return f"{self._written / self._seconds:,.0f} tokens/s" if self._seconds else ""

    def usage(self) -> dict[str, float]:
        """See `Policy.usage`."""
        return {"own_tokens": self._written, "seconds": round(self._seconds, 3)}

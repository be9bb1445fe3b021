"""A policy sampled by vLLM, through TRL: in this process beside the trainer, or by a server of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepsearch_data.pipeline.errors import ConfigError
from stepsearch_data.trainer.episode import STOPS
from stepsearch_data.trainer.recipe import Vllm
from stepsearch_data.trainer.settings import Limits


class VllmSampler:
    """See `Sampler`. vLLM has its own cache of what rows have in common, so each turn sends the whole text so far.

    Weights are sent to it when a batch begins. Raises ConfigError where it is not installed.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        config: Vllm,
        limits: Limits,
        temperature: float,
    ) -> None:
        if config.mode == "server" and accelerator.num_processes > 1:
            # TRL's client expects as many prompts from every process; live rows are not.
            raise ConfigError("vllm.mode server takes rollouts of one process only", 'vllm.mode = "colocate"')
        try:
            from trl.generation.vllm_generation import VLLMGeneration

            self._vllm: Any = VLLMGeneration(
                model=policy,
                accelerator=accelerator,
                processing_class=tokenizer,
                mode=config.mode,
                server_base_url=config.url,
                gpu_memory_utilization=config.memory,
                max_model_length=limits.total,
                enable_sleep_mode=config.sleep,
                temperature=temperature,
                max_completion_length=limits.turn,
                logprobs=None,
                generation_kwargs={"stop": list(STOPS), "include_stop_str_in_output": True},
            )
        except ImportError as error:
            raise ConfigError("vLLM is not installed", "pip install trl[vllm], or leave [vllm] out") from error

    def begin(self, prompts: Sequence[list[int]]) -> None:
        """See `Sampler.begin`."""
        self._vllm.sync_weights()
        self._texts = list(prompts)

    def turn(self, budgets: Sequence[int]) -> list[list[int]]:
        """See `Sampler.turn`."""
        writing = [row for row, budget in enumerate(budgets) if budget > 0]
        _, written, *_ = self._vllm.generate([self._texts[row] for row in writing], None, 1) if writing else ([], [])
        turns: list[list[int]] = [[] for _ in budgets]
        for row, turn in zip(writing, written, strict=True):
            turns[row] = list(turn[: budgets[row]])
            self._texts[row] = self._texts[row] + turns[row]
        return turns

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """See `Sampler.replace_last`."""
        self._texts[row] = [*self._texts[row][:-1], *tokens]

    def go_on(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """See `Sampler.go_on`."""
        self._texts = [self._texts[row] + seen for row, seen in zip(rows, observations, strict=True)]

"""A policy sampled by vLLM, through TRL: in this process beside the trainer, or by a server of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from stepsearch_data.core.errors import ConfigError, StepSearchError, TrainError
from stepsearch_data.remote.secrets import check_address, redact
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.distributed import failing_together
from stepsearch_data.trainer.recipe import Vllm
from stepsearch_data.trainer.sampler import end_tokens
from stepsearch_data.trainer.stops import STOPS

_SERVE = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --max-model-len {length} --logprobs-mode processed_logprobs "
    """--weight-transfer-config '{{"backend": "nccl"}}'"""
)


class VllmSampler:
    """See `ReportsLogps`. vLLM has its own cache of what rows have in common, so each turn sends the whole text so far.

    A batch begins with the policy's weights sent to vLLM, which sleeps, if it is to, when the last row has ended.
    Raises ConfigError where vLLM is not installed or its server was started otherwise than it must be, and TrainError
    for whatever vLLM fails at.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        config: Vllm,
        limits: Limits,
        temperature: float,
        stops: Sequence[str] = STOPS,
    ) -> None:
        check_address("vllm.server_base_url", config.server_base_url or "")
        self._serve = _SERVE.format(length=limits.max_length + limits.max_new_tokens) if config.mode == "server" else ""
        self._accelerator = accelerator
        with self._explained("start"):
            self._vllm = _Generation(
                model=policy,
                accelerator=accelerator,
                processing_class=tokenizer,
                mode=config.mode,
                server_base_url=config.server_base_url,
                gpu_memory_utilization=config.gpu_memory_utilization,
                max_model_length=limits.max_length,
                enable_sleep_mode=config.enable_sleep_mode,
                temperature=temperature,
                logprobs=0,  # of the tokens that were sampled, and of no other
                generation_kwargs={
                    "stop": list(stops),
                    "stop_token_ids": sorted(end_tokens(policy, tokenizer)),
                    "include_stop_str_in_output": True,
                },
            )
            if self._serve:
                self._check(self._vllm.vllm_client.get_server_info()["model_config"], limits)
        self._has_weights, self.seed = False, tuple[int, ...]()  # vLLM draws by itself
        self._sleeps = config.enable_sleep_mode and not self._serve
        self._vllm.enable_sleep_mode = False  # TRL would sleep after every turn: weights sent anew, no prefix kept

    def start(self, prompts: Sequence[list[int]]) -> None:
        """See `Sampler.start`."""
        self._texts, self._rows = list(prompts), list(range(len(prompts)))
        self._logps: list[list[float]] = [[] for _ in prompts]
        if not self._has_weights:
            self.take_weights()
        self._has_weights = False

    def take_weights(self) -> None:
        """See `TakesWeights.take_weights`."""
        self._has_weights = True
        # Together: before the main process has sent them, no other may ask.
        with failing_together(self._accelerator), self._explained("take the weights"):
            if self._sleeps:
                torch.cuda.empty_cache()
                self._vllm.llm.wake_up(tags=["weights"])
            self._vllm.sync_weights()
            if self._sleeps:
                self._vllm.llm.wake_up(tags=["kv_cache"])

    def generate(self, max_new_tokens: Sequence[int]) -> list[list[int]]:
        """See `Sampler.generate`."""
        turns: list[list[int]] = [[] for _ in max_new_tokens]
        writing = [row for row, limit in enumerate(max_new_tokens) if limit > 0]
        if writing:
            self._vllm.max_completion_length = max(max_new_tokens)
            with self._explained("generate"):
                written, logps = self._vllm.write([self._texts[row] for row in writing])
            for row, tokens, likely in zip(writing, written, logps, strict=True):
                turns[row] = list(tokens[: max_new_tokens[row]])
                self._texts[row] = self._texts[row] + turns[row]
                own = (each[0] for each in likely[: max_new_tokens[row]])
                self._logps[self._rows[row]] += [float("nan") if logp is None else logp for logp in own]
        return turns

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """See `Sampler.replace_last`."""
        self._texts[row] = [*self._texts[row][:-1], *tokens]
        self._logps[self._rows[row]].pop()

    def extend(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """See `Sampler.extend`."""
        self._texts = [self._texts[row] + seen for row, seen in zip(rows, observations, strict=True)]
        self._rows = [self._rows[row] for row in rows]
        if self._sleeps and not rows:
            with self._explained("sleep"):
                self._vllm.llm.sleep(level=2)

    def logps(self) -> list[list[float]]:
        """See `ReportsLogps.logps`."""
        return self._logps

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Raise TrainError for what vLLM and TRL raise, often a bare Exception."""
        try:
            yield
        except (StepSearchError, torch.OutOfMemoryError):
            raise
        except ImportError as error:
            raise ConfigError(
                "vLLM is not installed", "pip install 'stepsearch-data[train,vllm]', or leave [vllm] out"
            ) from error
        except Exception as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            hint = f"start the server by {self._serve}" if self._serve else "vLLM's own log says more"
            raise TrainError(f"vLLM does not {what}: {redact(reason)}", hint) from error

    def _check(self, server: dict[str, Any], limits: Limits) -> None:
        """Raise ConfigError for a server that would refuse long texts, or report other log-probabilities."""
        needed = limits.max_length + limits.max_new_tokens  # a server refuses what might become too long for it
        if (most := server["max_model_len"]) < needed:
            wrong = f"takes {most} tokens, limits.max_length and limits.max_new_tokens need {needed}"
        elif server["logprobs_mode"] != "processed_logprobs":
            wrong = f"reports {server['logprobs_mode']}, not those at the temperature"
        else:
            return
        raise ConfigError(f"the vLLM server {wrong}", f"start it by {self._serve}")


class _Generation(VLLMGeneration):
    """TRL's generation, but each process asks a server itself, and adapters are merged into copies.

    TRL's takes as many prompts from every process, in as many turns; episodes end when they end. Merging in place and
    back changes bfloat16 weights.
    """

    def _init_vllm(self) -> None:
        super()._init_vllm()
        if self.mode == "server" and not self.accelerator.is_main_process:  # whose client sends the weights too
            self.vllm_client = VLLMClient(self.server_base_url, connection_timeout=self.server_timeout)

    def write(self, prompts: list[list[int]]) -> tuple[list[list[int]], list[list[list[float | None]]]]:
        """Continue these texts; return the tokens, and of each its log-probability."""
        if self.mode == "colocate":
            _, written, logps, _ = self.generate(prompts, None, 1)
            return written, logps
        told = self.vllm_client.generate(
            prompts,
            temperature=self.temperature,
            max_tokens=self.max_completion_length,
            logprobs=self.logprobs,
            generation_kwargs=self.generation_kwargs,
        )
        return told["completion_ids"], told["logprobs"]

    def _iter_named_params(self) -> Iterator[tuple[str, Tensor]]:
        yield from merged(self.model) if is_peft_model(self.model) else super()._iter_named_params()


def merged(policy: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a model with its LoRA adapters in them, under its own names, copying layer by layer."""
    model = policy.get_base_model()
    for name, parameter in model.named_parameters():
        layer, adapted, own = name.rpartition(".base_layer.")
        if adapted:
            yield f"{layer}.{own}", _merged(model.get_submodule(layer)).get_parameter(own).data
        elif policy.prefix not in name:
            yield name, parameter.data


@torch.no_grad()
def _merged(layer: Any) -> Any:
    whole = copy.deepcopy(layer)
    whole.merge()
    return whole.get_base_layer()

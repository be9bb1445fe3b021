"""What TRL uses of vLLM, for machines without a GPU: as strict about sleep, about weights and about tokens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from queue import Queue
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

__version__ = "0.31.0"
_PARTS = (
    "sampling_params",
    "utils.network_utils",
    "distributed.weight_transfer.nccl_common",
    "distributed.weight_transfer.packed_tensor",
)
sys.modules |= {f"vllm.{name}": sys.modules[__name__] for name in _PARTS}  # one file stands for all


class SamplingParams(SimpleNamespace):
    """As keywords say."""


class RequestOutput(SimpleNamespace):
    """Of one prompt."""


class StructuredOutputsParams:
    """Imported by TRL, used by nobody here."""


def get_ip() -> str:
    return "127.0.0.1"


def trainer_init(info: dict[str, Any]) -> SimpleNamespace:
    """Joins the group in which weights travel."""
    assert info["world_size"] == 2
    return SimpleNamespace(group=SimpleNamespace(store=None, socket=None))


def packed_nccl_broadcast_producer(*, iterator: Any, group: Any, src: int, post_iter_func: Any) -> None:
    """Sends tensors to the server, which takes them from `sent`."""
    for item in iterator:
        sent.put(post_iter_func(item).clone())


sent: Queue[torch.Tensor] = Queue()


class LLM:
    """A model of its own. `events` are what was asked of it, `read` the tokens that its prefix cache did not hold."""

    def __init__(self, model: str, *, enable_sleep_mode: bool, logprobs_mode: str, seed: int = 0, **_: Any) -> None:
        assert logprobs_mode == "processed_logprobs"
        dtype = getattr(torch, os.environ.get("STANDIN_DTYPE", "float32"))
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.events: list[str] = []
        self.read = 0
        self._may_sleep, self._asleep = enable_sleep_mode, set[str]()
        self._known: set[tuple[int, ...]] = set()
        self._random = torch.Generator().manual_seed(seed)
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=self))
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        assert "weights" not in self._asleep
        if self.events[-1:] != ["load"]:
            self.events.append("load")
        for name, tensor in weights:
            parameter = self.model.get_parameter(name)
            assert parameter.shape == tensor.shape
            parameter.data.copy_(tensor)

    def sleep(self, level: int) -> None:
        assert self._may_sleep
        assert level == 2
        self.events.append("sleep")
        self._asleep = {"weights", "kv_cache"}
        self._known.clear()
        for parameter in self.model.parameters():
            parameter.data.fill_(torch.nan)

    def wake_up(self, tags: Sequence[str]) -> None:
        assert self._may_sleep
        self.events += [f"wake {tag}" for tag in tags]
        self._asleep -= set(tags)

    def reset_prefix_cache(self) -> None:
        self._known.clear()

    def generate(
        self, prompts: Sequence[dict[str, list[int]]], *, sampling_params: SamplingParams, use_tqdm: bool
    ) -> list[RequestOutput]:
        assert not self._asleep
        assert not use_tqdm
        self.events.append("generate")
        return [self._write(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]

    @torch.no_grad()
    def _write(self, prompt: list[int], how: SamplingParams) -> RequestOutput:
        assert how.include_stop_str_in_output
        self.read += sum(tuple(prompt[:end]) not in self._known for end in range(1, len(prompt) + 1))
        tokens: list[int] = []
        logprobs: list[dict[int, Any]] = []
        while len(tokens) < how.max_tokens:
            logits = self.model(torch.tensor([prompt + tokens])).logits[0, -1].float()
            likely = torch.log_softmax(logits / how.temperature, dim=-1)
            token = int(torch.multinomial(likely.exp(), 1, generator=self._random))
            assert not likely.isnan().any()
            tokens.append(token)
            logprobs.append({token: SimpleNamespace(logprob=float(likely[token]), rank=1)})
            text = self.tokenizer.decode(tokens)
            if token in how.stop_token_ids or any(stop in text for stop in how.stop):
                break
        whole = prompt + tokens
        self._known |= {tuple(whole[:end]) for end in range(1, len(whole))}  # the last token has not been read
        written = SimpleNamespace(token_ids=tokens, logprobs=logprobs if how.logprobs == 0 else None)
        return RequestOutput(prompt_token_ids=prompt, outputs=[written])

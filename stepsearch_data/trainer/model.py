"""The policy, its critic and the frozen reference, on `transformers` models."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.trainer.utils import disable_dropout_in_model, selective_log_softmax_and_entropy


class Read(NamedTuple):
    """What the models make of a batch, each (rows, tokens); 0 where the policy did not write the token.

    `logps[:, i]` is the log-probability of token i, `values[:, i]` the critic's estimate before it was written.
    """

    logps: Tensor
    values: Tensor
    entropy: Tensor


class ActorCritic(nn.Module):
    """Policy and critic as one module, so that accelerate, FSDP or DeepSpeed wrap and shard both.

    The policy is any causal language model, the critic a token classifier with one label: its value head.
    Log-probabilities are those of sampling at `temperature`.
    """

    def __init__(self, policy: PreTrainedModel, critic: PreTrainedModel, temperature: float = 1.0) -> None:
        super().__init__()
        self.policy, self.critic, self._temperature = policy, critic, temperature
        # What FSDP keeps in one part each; transformers knows it of both.
        parts = (getattr(model, "_no_split_modules", None) or () for model in (policy, critic))
        self._no_split_modules = sorted({name for names in parts for name in names})
        disable_dropout_in_model(self)  # the ratio of two passes over the same weights must be 1

    def forward(self, tokens: Tensor, attention: Tensor, own: Tensor) -> Read:
        """See `Read`; `attention` is true where there is a token, `own` where the policy wrote it."""
        logps, entropy = log_probabilities(self.policy, tokens, attention, own, self._temperature)
        values = self.critic(input_ids=tokens, attention_mask=attention).logits[:, :-1, 0].float()
        values = torch.where(own, nn.functional.pad(values, (1, 0)), 0)
        return Read(logps, values, entropy)


def log_probabilities(
    policy: nn.Module, tokens: Tensor, attention: Tensor, own: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of each own token, (rows, tokens) both.

    Logits are made only at places where some row's next token is the policy's: over a vocabulary of 150,000 they would
    otherwise be the largest tensor of the training.
    """
    places = own[:, 1:].any(dim=0).nonzero()[:, 0]
    logits = policy(input_ids=tokens, attention_mask=attention, logits_to_keep=places).logits.float()
    of_places = selective_log_softmax_and_entropy(logits, tokens[:, places + 1], temperature=temperature)
    full = logits.new_zeros(tokens.shape)
    logps, entropy = (torch.where(own, full.index_copy(1, places + 1, each), 0) for each in of_places)
    return logps, entropy


class Reference:
    """The policy as it was before training: a frozen copy, or with LoRA the model without its adapter."""

    def __init__(self, policy: PreTrainedModel, temperature: float = 1.0) -> None:
        self._temperature = temperature
        self._adapted = policy if hasattr(policy, "disable_adapter") else None
        self._copy = None if self._adapted else copy.deepcopy(policy).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def logps(self, policy: nn.Module, tokens: Tensor, attention: Tensor, own: Tensor) -> Tensor:
        """Log-probability of each own token, (rows, tokens). `policy` is the one that is being trained."""
        adapted = policy.disable_adapter() if self._adapted else nullcontext()
        with adapted:
            return log_probabilities(self._copy or policy, tokens, attention, own, self._temperature)[0]


class WholeCopy:
    """The policy in one piece, for rollouts and checkpoints, where FSDP trains it in parts and computes in a type."""

    def __init__(self, policy: PreTrainedModel, dtype: torch.dtype | None = None) -> None:
        self.policy = copy.deepcopy(policy).eval().requires_grad_(requires_grad=False)
        for parameter in self.policy.parameters():
            parameter.data = parameter.data.to(dtype)  # buffers stay as they are, in FSDP too

    @torch.no_grad()
    def renewed(self, parameters: Iterable[Any]) -> PreTrainedModel:
        """The copy, with the weights of these parameters in parts. Every process has to ask, or all wait."""
        for whole, part in zip(self.policy.parameters(), parameters, strict=True):
            whole.copy_(part.full_tensor())
        return self.policy

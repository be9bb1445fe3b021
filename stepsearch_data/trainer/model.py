"""The models of PPO: the policy and its critic, trained as one module, and the frozen reference policy."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stepsearch_data.trainer.causal_lm import log_probabilities, run_trunk, switch_checkpointing


class Output(NamedTuple):
    """What the models make of a batch, each (rows, tokens); 0 where the policy did not write the token.

    `logps[:, i]` is the log-probability of token i, `values[:, i]` the critic's estimate before it was written.
    """

    logps: Tensor
    values: Tensor
    entropy: Tensor


class Critic(nn.Module):
    """The value model: the trunk of any causal language model, and a linear layer that makes values of what it read."""

    def __init__(self, trunk: PreTrainedModel) -> None:
        super().__init__()
        config = trunk.config.get_text_config()
        self.trunk, self.head = trunk, nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the value after each token, (rows, tokens)."""
        hidden = run_trunk(self.trunk, input_ids).last_hidden_state
        values: Tensor = self.head(hidden.to(self.head.weight.dtype))[:, :, 0]
        return values.float()


class ActorCritic(nn.Module):
    """Policy and critic as one module, so that accelerate, FSDP or DeepSpeed wrap and shard both.

    Log-probabilities are those of sampling at `temperature`. Without a critic all values are 0.
    """

    def __init__(self, policy: PreTrainedModel, critic: Critic | None, temperature: float = 1.0) -> None:
        super().__init__()
        self.policy, self.critic, self._temperature = policy, critic, temperature
        # What FSDP keeps in one part each; transformers knows it of both.
        trunks = [policy, critic.trunk] if critic else [policy]
        parts = (getattr(model, "_no_split_modules", None) or () for model in trunks)
        self._no_split_modules = sorted({name for names in parts for name in names})

    def train(self, mode: bool = True) -> ActorCritic:  # noqa: FBT001, FBT002 - as torch has it
        """Switch gradient checkpointing on or off, wherever it was asked for, and nothing else.

        The ratio of two passes over the same weights must be 1: no dropout, no dropped layer, no noise of a router.
        """
        super().train(mode=False)
        switch_checkpointing(self, on=mode)
        return self

    def forward(self, input_ids: Tensor, response_mask: Tensor, *, policy: bool = True, entropy: bool = True) -> Output:
        """Read a batch; both tensors are (rows, tokens), as in `Batch`. Without `entropy` that is 0.

        Without `policy` the critic alone reads: log-probabilities are 0 too.
        """
        values = torch.zeros(input_ids.shape, device=input_ids.device)
        if self.critic:
            values = nn.functional.pad(self.critic(input_ids)[:, :-1], (1, 0))
            values = torch.where(response_mask, values, 0)
        if not policy:
            return Output(torch.zeros_like(values), values, torch.zeros_like(values))
        logps, entropies = log_probabilities(self.policy, input_ids, response_mask, self._temperature, entropy=entropy)
        return Output(logps, values, entropies)


class ReferencePolicy:
    """The policy as it was before training: a frozen copy, or with LoRA the model without its adapter."""

    def __init__(self, policy: PreTrainedModel, temperature: float = 1.0) -> None:
        self._temperature = temperature
        self._adapted = policy if hasattr(policy, "disable_adapter") else None
        self._copy = None if self._adapted else copy.deepcopy(policy).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def logps(self, policy: nn.Module, input_ids: Tensor, response_mask: Tensor) -> Tensor:
        """Return the log-probability of each token of the response mask, (rows, tokens).

        `policy` is the one being trained.
        """
        adapted = policy.disable_adapter() if self._adapted else nullcontext()
        with adapted:
            model = self._copy or policy
            return log_probabilities(model, input_ids, response_mask, self._temperature)[0]

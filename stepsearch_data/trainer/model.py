"""The policy, its critic and the frozen reference, on `transformers` models."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from stepsearch_data.trainer.causal_lm import inner, logits_of, read, trunk_of

_FEW, _MANY = 2**22, 2**26
"""Logits made at a time, at least and at most. With what softmax and entropy need they take four times 4 bytes."""


class Read(NamedTuple):
    """What the models make of a batch, each (rows, tokens); 0 where the policy did not write the token.

    `logps[:, i]` is the log-probability of token i, `values[:, i]` the critic's estimate before it was written.
    """

    logps: Tensor
    values: Tensor
    entropy: Tensor


class Critic(nn.Module):
    """The trunk of any causal language model, and a linear layer that makes a value of what it read."""

    def __init__(self, trunk: PreTrainedModel) -> None:
        super().__init__()
        config = trunk.config.get_text_config()
        self.trunk, self.head = trunk, nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """The value after each token, (rows, tokens)."""
        hidden = read(self.trunk, tokens, attention).last_hidden_state
        values: Tensor = self.head(hidden.to(self.head.weight.dtype))[:, :, 0]
        return values.float()


class ActorCritic(nn.Module):
    """Policy and critic as one module, so that accelerate, FSDP or DeepSpeed wrap and shard both.

    Log-probabilities are those of sampling at `temperature`.
    """

    def __init__(self, policy: PreTrainedModel, critic: Critic, temperature: float = 1.0) -> None:
        super().__init__()
        self.policy, self.critic, self._temperature = policy, critic, temperature
        # What FSDP keeps in one part each; transformers knows it of both.
        parts = (getattr(model, "_no_split_modules", None) or () for model in (policy, critic.trunk))
        self._no_split_modules = sorted({name for names in parts for name in names})

    def train(self, mode: bool = True) -> ActorCritic:  # noqa: FBT001, FBT002 - as torch has it
        """Switch gradient checkpointing on or off, wherever it was asked for, and nothing else.

        The ratio of two passes over the same weights must be 1: no dropout, no dropped layer, no noise of a router.
        """
        super().train(mode=False)
        for layer in self.modules():
            if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                layer.training = mode
                for name in [
                    name for name, value in vars(layer).items() if "drop" in name and isinstance(value, float)
                ]:
                    setattr(layer, name, 0.0)
        return self

    def forward(self, tokens: Tensor, attention: Tensor, own: Tensor) -> Read:
        """See `Read`; `attention` is true where there is a token, `own` where the policy wrote it."""
        logps, entropy = log_probabilities(self.policy, tokens, attention, own, self._temperature)
        values = nn.functional.pad(self.critic(tokens, attention)[:, :-1], (1, 0))
        return Read(logps, torch.where(own, values, 0), entropy)


def log_probabilities(
    policy: PreTrainedModel, tokens: Tensor, attention: Tensor, own: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of each own token, (rows, tokens) both.

    Over a vocabulary of 150,000, logits would be the largest tensor of the training. So they are made for own tokens
    only, for some of them at a time, and where there are several such parts once more in the backward pass.
    """
    output = read(trunk_of(policy), tokens, attention)
    hidden, targets = output.last_hidden_state[:, :-1][own[:, 1:]], tokens[:, 1:][own[:, 1:]]

    def of_part(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(policy, output, hidden, targets).float() / temperature
        logps, entropy = _LogSoftmax.apply(logits, targets)
        return logps, entropy

    vocabulary = inner(policy).config.get_text_config().vocab_size
    size = max(1, min(_MANY, max(_FEW, len(targets) * vocabulary // 4)) // vocabulary)
    parts = list(zip(hidden.split(size), targets.split(size), strict=True))
    again = torch.is_grad_enabled() and len(parts) > 1
    found = [checkpoint(of_part, *part, use_reentrant=False) if again else of_part(*part) for part in parts]
    return _spread([logps for logps, _ in found], own), _spread([entropy for _, entropy in found], own)


class _LogSoftmax(torch.autograd.Function):
    """Log-probability of each target and the entropy beside it, of logits (tokens, vocabulary).

    One step of autograd, which keeps the logits alone; the functions of torch would keep three times as much for both.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        total = logits.logsumexp(dim=-1, keepdim=True)
        entropy = torch.special.entr((logits - total).exp_()).sum(dim=-1)
        ctx.save_for_backward(logits, targets, total, entropy)
        return (logits.gather(1, targets[:, None]) - total)[:, 0], entropy

    @staticmethod
    def backward(ctx: Any, of_logps: Tensor, of_entropy: Tensor) -> tuple[Tensor, None]:
        """With p the probabilities: ∂ log p_t / ∂ z_i = [i = t] − p_i, and ∂ H / ∂ z_i = −p_i log p_i − p_i H."""
        logits, targets, total, entropy = ctx.saved_tensors
        chances = (logits - total).exp_()
        gradient = torch.special.entr(chances).mul_(of_entropy[:, None])
        gradient -= chances.mul_((of_logps + of_entropy * entropy)[:, None])
        return gradient.scatter_add_(1, targets[:, None], of_logps[:, None]), None


def _spread(parts: Sequence[Tensor], own: Tensor) -> Tensor:
    """Numbers of own tokens at their places, (rows, tokens), and 0 elsewhere."""
    of_own = torch.cat(list(parts))
    spread = of_own.new_zeros(own[:, 1:].shape).masked_scatter(own[:, 1:], of_own)
    return nn.functional.pad(spread, (1, 0))


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

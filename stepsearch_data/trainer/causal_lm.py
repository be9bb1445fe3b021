"""What causal language models have in common: a trunk that reads tokens, a head, log-probabilities of tokens."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

_FEW, _MANY = 2**22, 2**26
"""Logits made at a time, at least and at most. With what softmax and entropy need they take four times 4 bytes."""


def unwrap_adapters(model: Any) -> PreTrainedModel:
    """Return the model that `transformers` knows, without peft's adapters around it."""
    found: PreTrainedModel = getattr(model, "get_base_model", lambda: model)()
    return found


def trunk_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model without its head and without parts that read anything but text."""
    causal = unwrap_adapters(model)
    found = (causal.get_decoder(), causal.base_model, *causal.children())  # some name a layer, or themselves
    return next((each for each in found if isinstance(each, PreTrainedModel) and each is not causal), causal)


def run_trunk(
    trunk: PreTrainedModel, tokens: Tensor, attention: Tensor | None = None, cache: Cache | None = None
) -> Any:
    """Run the trunk over tokens; its output's `last_hidden_state` is (rows, tokens, width).

    With a cache that keeps earlier tokens `attention` covers them too. Without one nothing is kept, and rows are padded
    on the right: no token attends to what follows it, so no mask is needed, and torch can take its causal kernels.
    """
    given: dict[str, Any] = {"use_cache": cache is not None}
    if attention is not None:
        positions = (attention.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        given |= {"position_ids": positions, "cache": cache, "past_key_values": cache}  # renamed in transformers 5.24
    return trunk(input_ids=tokens, attention_mask=attention, **_accepted(type(unwrap_adapters(trunk)).forward, given))


def logits_of(model: PreTrainedModel, output: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Compute logits from some of the trunk's output, (tokens, vocabulary). `tokens` are as many, whichever.

    The model's own forward pass makes them, with the trunk's output put in its place: so they are scaled, capped or
    moved as the architecture does.
    """
    with _replaced_forward(trunk_of(model), type(output)(**{**output, "last_hidden_state": hidden[None]})):
        logits: Tensor = unwrap_adapters(model)(input_ids=tokens[None]).logits[0]
    return logits


def log_probabilities(
    policy: PreTrainedModel, input_ids: Tensor, response_mask: Tensor, temperature: float, *, entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute log-probability and entropy of each token of the response mask, both (rows, tokens), 0 elsewhere.

    Without `entropy`, which costs as much again, it is 0 everywhere.

    Over a vocabulary of 150,000, logits would be the largest tensor of the training. So they are made for these tokens
    only and in parts; where there are several parts, the backward pass makes them again.
    """
    output = run_trunk(trunk_of(policy), input_ids)
    mask = response_mask[:, 1:]
    hidden, targets = output.last_hidden_state[:, :-1][mask], input_ids[:, 1:][mask]

    def of_part(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(policy, output, hidden, targets).float() / temperature
        found: tuple[Tensor, Tensor] = _LogSoftmax.apply(logits, targets, entropy)
        return found

    vocabulary = unwrap_adapters(policy).config.get_text_config().vocab_size
    size = logits_at_once(len(targets), vocabulary)
    parts = list(zip(hidden.split(size), targets.split(size), strict=True))
    again = torch.is_grad_enabled() and len(parts) > 1
    found = [checkpoint(of_part, *part, use_reentrant=False) if again else of_part(*part) for part in parts]
    return _spread([logps for logps, _ in found], mask), _spread([entropies for _, entropies in found], mask)


def logits_at_once(tokens: int, vocabulary: int) -> int:
    """Return for how many of these tokens logits are made at a time."""
    return max(1, min(_MANY, max(_FEW, tokens * vocabulary // 4)) // vocabulary)


class _LogSoftmax(torch.autograd.Function):
    """Log-probability of each target and the entropy beside it, if wanted, of logits (tokens, vocabulary).

    One step of autograd, which keeps the logits alone; the functions of torch would keep three times as much for both.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:  # noqa: FBT001 - `apply` takes no keywords
        """See the class."""
        total = logits.logsumexp(dim=-1, keepdim=True)
        entropy = torch.special.entr((logits - total).exp_()).sum(dim=-1) if wanted else torch.zeros_like(total[:, 0])
        ctx.save_for_backward(logits, targets, total, entropy)
        ctx.wanted = wanted
        return (logits.gather(1, targets[:, None]) - total)[:, 0], entropy

    @staticmethod
    def backward(ctx: Any, of_logps: Tensor, of_entropy: Tensor) -> tuple[Tensor, None, None]:
        """Compute the gradients, with p the probabilities.

        ∂ log p_t / ∂ z_i = [i = t] − p_i, and ∂ H / ∂ z_i = −p_i log p_i − p_i H.
        """
        logits, targets, total, entropy = ctx.saved_tensors
        gradient = (logits - total).exp_()
        if ctx.wanted:
            of_entropies = torch.special.entr(gradient).mul_(of_entropy[:, None])
            gradient = of_entropies.sub_(gradient.mul_((of_logps + of_entropy * entropy)[:, None]))
        else:
            gradient.mul_(-of_logps[:, None])
        return gradient.scatter_add_(1, targets[:, None], of_logps[:, None]), None, None


def _spread(parts: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Put numbers of masked tokens at their places, 0 elsewhere and before the first token."""
    numbers = torch.cat(list(parts))
    return nn.functional.pad(numbers.new_zeros(mask.shape).masked_scatter(mask, numbers), (1, 0))


def switch_checkpointing(model: nn.Module, *, on: bool) -> None:
    """Switch gradient checkpointing on or off in the layers that were asked for it, and turn their dropout off."""
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
            layer.training = on
            for name in [name for name, value in vars(layer).items() if "drop" in name and isinstance(value, float)]:
                setattr(layer, name, 0.0)


def _accepted(forward: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name in _names(forward)}


@functools.cache
def _names(forward: Callable[..., Any]) -> frozenset[str]:
    """Return the arguments of a model's forward; cached, as models read token by token."""
    return frozenset(inspect.signature(forward).parameters)


@contextmanager
def _replaced_forward(trunk: PreTrainedModel, output: Any) -> Iterator[None]:
    own = vars(trunk).get("forward")
    trunk.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if own is None:
            del trunk.forward
        else:
            trunk.forward = own

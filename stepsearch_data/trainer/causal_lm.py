"""What causal language models have in common: a trunk that reads tokens, and a head that makes logits of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import Cache, PreTrainedModel


def inner(model: Any) -> PreTrainedModel:
    """The model that `transformers` knows, where adapters of peft may be around it."""
    found: PreTrainedModel = getattr(model, "get_base_model", lambda: model)()
    return found


def trunk_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its head, and without what reads anything but text."""
    causal = inner(model)
    found = (causal.get_decoder(), causal.base_model, *causal.children())  # some name a layer, or themselves
    return next((each for each in found if isinstance(each, PreTrainedModel) and each is not causal), causal)


def read(trunk: PreTrainedModel, tokens: Tensor, attention: Tensor, cache: Cache | None = None) -> Any:
    """What the trunk makes of tokens, its `last_hidden_state` of (rows, tokens, width).

    With a cache that keeps earlier tokens `attention` covers them too; without one nothing is kept.
    """
    given: dict[str, Any] = {"use_cache": cache is not None}
    if cache is not None:
        positions = (attention.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        given |= {"position_ids": positions, "cache": cache, "past_key_values": cache}  # renamed in transformers 5.24
    return trunk(input_ids=tokens, attention_mask=attention, **_accepted(type(inner(trunk)).forward, given))


def logits_of(model: PreTrainedModel, output: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Logits of some of what the trunk made, (tokens, vocabulary). `tokens` are as many, whichever.

    The model's own forward pass makes them, with the trunk's output put in its place: so they are scaled, capped or
    moved as the architecture does.
    """
    with _standing_in(trunk_of(model), type(output)(**{**output, "last_hidden_state": hidden[None]})):
        logits: Tensor = inner(model)(input_ids=tokens[None]).logits[0]
    return logits


def _accepted(forward: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name in _names(forward)}


@functools.cache
def _names(forward: Callable[..., Any]) -> frozenset[str]:
    """The arguments of a kind of model; looked up once, as models read token by token."""
    return frozenset(inspect.signature(forward).parameters)


@contextmanager
def _standing_in(trunk: PreTrainedModel, output: Any) -> Iterator[None]:
    own = vars(trunk).get("forward")
    trunk.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if own is None:
            del trunk.forward
        else:
            trunk.forward = own

"""The numbers of a training: cold start, schedule, PPO, episodes. No torch, so that a recipe is read without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

_MOST = 1_000_000_000  # more is a slip of the pen, and NaN and infinity are no numbers to train by
Count = Annotated[int, Field(ge=1, le=_MOST)]
Natural = Annotated[int, Field(ge=0, le=_MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=_MOST)]
Amount = Annotated[float, Field(ge=0, le=_MOST)]


@dataclass(frozen=True)
class SFT:
    """How the cold start is trained."""

    steps: Natural = 300
    batch: Count = 16
    micro: Count = 8
    lr: Amount = 1e-5
    warmup: Share = 0.05
    """Share of the steps in which the learning rate rises; it then falls in a line to a tenth."""
    longest: Count = 4096
    """Tokens of a demonstration; longer ones are left out."""
    seed: Natural = 0


@dataclass(frozen=True)
class Schedule:
    """How long is trained, on how much and how fast (arXiv 2505.15107, appendix B)."""

    updates: Natural = 500
    """Batches of rollouts."""
    rollouts: Count = 256
    """Rollouts of an update, over all processes."""
    actor_lr: Amount = 7e-7
    critic_lr: Amount = 7e-6
    actor_warmup: Share = 0.285
    """Share of all optimiser steps in which the policy's learning rate rises from 0."""
    critic_warmup: Share = 0.015
    """The same of the critic's."""
    temperature: Positive = 1.0
    """Of sampling while training."""
    seed: Natural = 0
    save_every: Natural = 50
    """Updates between checkpoints; 0 saves the last only."""
    keep: Count = 2
    """Checkpoints that are kept."""
    eval_every: Natural = 50
    """Updates between evaluations; 0 evaluates never."""


@dataclass(frozen=True)
class PPO:
    """The numbers of PPO (arXiv 2505.15107, appendix B; where it is silent, the release's)."""

    gamma: Share = 1.0
    """γ of returns."""
    lam: Share = 1.0
    """λ of generalised advantage estimation."""
    clip: Positive = 0.2
    """ε of the policy's loss."""
    value_clip: Positive = 0.5
    """How far a value may move in one update."""
    kl: Amount = 1e-3
    """Coefficient of the KL to the reference, taken off the rewards."""
    entropy: Amount = 0.0
    """Coefficient of the entropy bonus (the release: 0.001)."""
    whiten: bool = True
    """Advantages get mean 0 and variance 1."""
    epochs: Count = 1
    """How often the update goes over the batch."""
    minibatch: Count = 64
    """Rollouts of an optimiser step, over all processes."""
    micro: Count = 32
    """Rollouts of a forward pass, on one process: lower it when memory runs out, results stay the same."""
    importance_cap: Amount = 3.0
    """Largest weight of a token that the trainer finds likelier than vLLM, which sampled it, did; 0: all weigh 1."""
    max_norm: Positive = 1.0
    """Norm that the gradients of the policy, and of the critic, are clipped to."""


@dataclass(frozen=True)
class Limits:
    """How long an episode may be (arXiv 2505.15107, appendix B). Lengths are in tokens."""

    turns: Natural = 5
    """Turns that may search; one more, without search, may follow."""
    documents: Count = 3
    """Documents that a search returns."""
    total: Count = 4096
    """Prompt and response together."""
    turn: Count = 500
    """What the policy writes in one turn."""
    observation: Count = 600
    """What the engine's answer is cut to, `</information>` kept."""

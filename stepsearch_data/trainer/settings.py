"""The numbers of a training: cold start, schedule and PPO. No torch, so that a recipe can be read without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SFT:
    """How the cold start is trained."""

    steps: int = 300
    batch: int = 16
    micro: int = 8
    lr: float = 1e-5
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises; it then falls in a line to a tenth."""
    longest: int = 4096
    """Tokens of a demonstration; longer ones are left out."""
    seed: int = 0


@dataclass(frozen=True)
class Schedule:
    """How long is trained, on how much and how fast (arXiv 2505.15107, appendix B)."""

    updates: int = 500
    """Batches of rollouts."""
    rollouts: int = 256
    """Rollouts of an update, over all processes."""
    actor_lr: float = 7e-7
    critic_lr: float = 7e-6
    actor_warmup: float = 0.285
    """Share of all optimiser steps in which the policy's learning rate rises from 0."""
    critic_warmup: float = 0.015
    """The same of the critic's."""
    temperature: float = 1.0
    """Of sampling while training."""
    seed: int = 0
    save_every: int = 50
    """Updates between checkpoints; 0 saves the last only."""
    keep: int = 2
    """Checkpoints that are kept."""
    eval_every: int = 50
    """Updates between evaluations; 0 evaluates never."""


@dataclass(frozen=True)
class PPO:
    """The numbers of PPO (arXiv 2505.15107, appendix B; where it is silent, the release's)."""

    gamma: float = 1.0
    """γ of returns."""
    lam: float = 1.0
    """λ of generalised advantage estimation."""
    clip: float = 0.2
    """ε of the policy's loss."""
    value_clip: float = 0.5
    """How far a value may move in one update."""
    kl: float = 1e-3
    """Coefficient of the KL to the reference, taken off the rewards."""
    entropy: float = 0.0
    """Coefficient of the entropy bonus (the release: 0.001)."""
    whiten: bool = True
    """Advantages get mean 0 and variance 1."""
    epochs: int = 1
    """How often the update goes over the batch."""
    minibatch: int = 64
    """Rollouts of an optimiser step, over all processes."""
    micro: int = 32
    """Rollouts of a forward pass, on one process: lower it when memory runs out, results stay the same."""
    max_norm: float = 1.0
    """Norm that the gradients of the policy, and of the critic, are clipped to."""

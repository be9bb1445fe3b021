"""The settings of a training, named as TRL and verl name them. No torch, so that a recipe is read without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

_MOST = 1_000_000_000  # more is a typing error; NaN and infinity are refused too
Count = Annotated[int, Field(ge=1, le=_MOST)]
Natural = Annotated[int, Field(ge=0, le=_MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=_MOST)]
Amount = Annotated[float, Field(ge=0, le=_MOST)]


@dataclass(frozen=True)
class Schedule:
    """How long is trained, on how much and how fast (arXiv 2505.15107, appendix B). An update is a batch of rollouts.

    A ratio is a share of all optimiser steps: in these the learning rate rises from 0, then it stays.
    """

    num_updates: Natural = 500
    rollout_batch_size: Count = 256
    """Rollouts of an update, over all processes."""
    learning_rate: Amount = 7e-7
    vf_learning_rate: Amount = 7e-6
    """The critic's."""
    warmup_ratio: Share = 0.285
    vf_warmup_ratio: Share = 0.015
    """The critic's."""
    temperature: Positive = 1.0
    """Of sampling while training."""
    seed: Natural = 0
    async_search: bool = False
    """Queries go one by one, and rollouts go on while others wait for documents: for a slow engine."""
    overlap: bool = False
    """The next batch is rolled out while this one is learnt, by the policy before this update."""
    save_steps: Natural = 50
    """Updates between checkpoints; 0 saves the last only."""
    save_total_limit: Count = 2
    """Checkpoints that are kept; the best one is kept beside them."""
    eval_steps: Natural = 50
    """Updates between evaluations; 0 never evaluates."""
    early_stop: Natural = 0
    """Evaluations in a row without a higher held-out exact match, after which training ends; 0 goes on."""


@dataclass(frozen=True)
class PPOConfig:
    """The numbers of PPO (arXiv 2505.15107, appendix B; where it is silent, the reference code's)."""

    gamma: Share = 1.0
    """γ of returns."""
    lam: Share = 1.0
    """λ of generalised advantage estimation."""
    turn_level_gae: bool = False
    """γ and λ count turns, not tokens."""
    group_size: Count = 1
    """Rollouts of each question in an update; more than one are compared with each other, and there is no critic."""
    cliprange: Positive = 0.2
    """ε of the policy's loss."""
    cliprange_value: Positive = 0.5
    """How far a value may move in one update."""
    kl_coef: Amount = 1e-3
    """Coefficient of the KL to the reference policy, subtracted from the rewards."""
    entropy_coef: Amount = 0.0
    """Coefficient of the entropy bonus (the reference code: 0.001)."""
    whiten_advantages: bool = True
    """Advantages get mean 0 and variance 1."""
    num_ppo_epochs: Count = 1
    """How often the update goes over the batch."""
    mini_batch_size: Count = 64
    """Rollouts of an optimiser step, over all processes."""
    micro_batch_size: Count = 32
    """Rollouts of a forward pass, on one process: lower it when memory runs out, results stay the same."""
    micro_batch_tokens: Natural = 0
    """Tokens of a forward pass, with padding, in place of so many rollouts: of short ones more; 0: as many rollouts."""
    importance_sampling_cap: Amount = 3.0
    """Largest weight of a token that the trainer finds likelier than vLLM, which sampled it, did; 0: all weigh 1."""
    max_grad_norm: Positive = 1.0
    """Norm that the gradients of the policy, and of the critic, are clipped to."""

    @property
    def has_critic(self) -> bool:
        """Tell whether advantages are by a critic, not by a group."""
        return self.group_size == 1

    @property
    def cut_by(self) -> str:
        """Name the setting that says how large a forward pass is."""
        return "ppo.micro_batch_tokens" if self.micro_batch_tokens else "ppo.micro_batch_size"


@dataclass(frozen=True)
class Chat:
    """How prompts become conversations."""

    template: bool = True
    """Prompts are a user's message, where the tokenizer has a chat template; else plain text."""
    turns: bool = False
    """Observations are the user's messages; else they are part of the policy's."""
    variables: Mapping[str, str | bool | int | float] = field(default_factory=dict)
    """Variables of the chat template, such as `enable_thinking`."""


CHAT = Chat()


@dataclass(frozen=True)
class Limits:
    """How long an episode may be (arXiv 2505.15107, appendix B). Lengths are in tokens."""

    max_turns: Natural = 5
    """Turns that may search; one more, without search, may follow."""
    topk: Count = 3
    """Documents that a search returns."""
    max_length: Count = 4096
    """Prompt and response together."""
    max_new_tokens: Count = 500
    """What the policy writes in one turn."""
    max_obs_length: Count = 600
    """What the engine's answer is cut to, `</information>` kept."""

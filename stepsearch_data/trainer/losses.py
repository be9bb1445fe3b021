"""PPO's losses and advantages, as pure tensor functions. Tensors are (rows, tokens) unless a docstring says otherwise.

`mask` is the response mask: true where the policy itself wrote the token. What the engine wrote (observations) and
padding are false, and have no influence on any result: no loss, no value target, no KL, no place in a mean, and
GAE steps over them as if the policy's tokens were neighbours. The reference code masks its policy loss only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

AllReduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""


def masked_mean(values: Tensor, mask: Tensor, all_reduce: AllReduce = lambda local: local) -> Tensor:
    """Average over the masked tokens of all rows, of all processes with `all_reduce`.

    The result is a scalar, 0 where no token is masked.
    """
    return all_reduce(torch.where(mask, values, 0).sum()) / all_reduce(mask.sum()).clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor, all_reduce: AllReduce = lambda local: local) -> Tensor:
    """Scale values to mean 0 and variance 1 over the masked tokens, 0 elsewhere."""
    centred = torch.where(mask, values - masked_mean(values, mask, all_reduce), 0)
    return centred * torch.rsqrt(masked_mean(centred**2, mask, all_reduce) + 1e-8)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 1.0, *, by_turns: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute advantages and returns by generalised advantage estimation (arXiv 1506.02438), 0 outside the mask.

    δ_i = r_i + γ V_{i+1} − V_i and A_i = δ_i + γλ A_{i+1}, where i + 1 is the policy's *next* token and what
    follows the last one is worth nothing; returns are A + V. With γ = λ = 1 a return is the sum of all later rewards.

    `by_turns` takes γ and λ as 1 where i + 1 stands next to i, in the same turn. So A_i is the sum of the turn's
    rewards from i on, plus γ V of the next turn's first token, minus V_i, plus γλ A of that token (arXiv 2512.17008).
    """
    advantages = torch.zeros_like(values)
    next_value, next_advantage = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    one, in_turn = torch.ones_like(next_value), torch.zeros_like(mask[:, 0])
    for token in reversed(range(values.shape[1])):
        by_policy = mask[:, token]
        discount, trace = torch.where(in_turn, one, gamma), torch.where(in_turn, one, gamma * lam)
        delta = rewards[:, token] + discount * next_value - values[:, token]
        next_advantage = torch.where(by_policy, delta + trace * next_advantage, next_advantage)
        next_value = torch.where(by_policy, values[:, token], next_value)
        advantages[:, token] = torch.where(by_policy, next_advantage, 0)
        in_turn = by_policy & by_turns
    return advantages, torch.where(mask, advantages + values, 0)


def group_advantages(rewards: Tensor, mask: Tensor, group: int, gamma: float = 1.0) -> tuple[Tensor, Tensor]:
    """Compute advantages and returns against a group: so many rows in a row are rollouts of one question.

    r_k are the rewards of turn k together (a turn is a run of the mask), and R_k = Σ_{l ≥ k} γ^{l−k} r_l is what a
    rollout still earns from turn k on, 0 after its last one. Each token of turn k has the return R_k and the advantage
    R_k − mean of R_k over the group: that of RLOO (arXiv 2402.14740) per turn, times (group − 1) / group. Both are 0
    outside the mask.
    """
    to_go, _ = gae(rewards, torch.zeros_like(rewards), mask, gamma, by_turns=True)
    starts = mask & ~nn.functional.pad(mask[:, :-1], (1, 0))
    turn = (starts.cumsum(dim=1) - 1).clamp(min=0)
    left = torch.zeros_like(rewards)  # of each row by turns, of which there are fewer than tokens
    left[starts.nonzero(as_tuple=True)[0], turn[starts]] = to_go[starts]
    above = left - left.view(-1, group, left.shape[1]).mean(dim=1).repeat_interleave(group, dim=0)
    advantages, returns = (torch.where(mask, of_turn.gather(1, turn), 0) for of_turn in (above, left))
    return advantages, returns


def policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, cliprange: float, weights: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """Compute PPO's clipped loss (arXiv 1707.06347, eq. 7), and the share of clipped tokens; two scalars.

    −w min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) with ρ = exp(logps − old_logps), mean over the masked tokens of all rows.
    """
    ratio = torch.exp(torch.where(mask, logps - old_logps, 0))
    free, clipped = ratio * advantages, ratio.clamp(1 - cliprange, 1 + cliprange) * advantages
    return -masked_mean(weights * torch.minimum(free, clipped), mask), masked_mean((clipped < free).float(), mask)


def importance_weights(logps: Tensor, sampling_logps: Tensor, cap: float) -> Tensor:
    """Compute min(π / μ, cap) of each token that another engine, μ, is known to have sampled, else 1.

    Source: arXiv 1802.01561.
    """
    return torch.exp(torch.where(sampling_logps.isfinite(), logps - sampling_logps, 0)).clamp(max=cap)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, cliprange_value: float) -> Tensor:
    """Compute half of the squared error of V, or of V kept within the clip range of the old V.

    The larger of both counts for each token. The result is a scalar.
    """
    values, old_values = torch.where(mask, values, 0), torch.where(mask, old_values, 0)
    clipped = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2), mask)


def kl_penalty(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(policy ‖ reference) on each token that the policy sampled: logps − ref_logps (k1), else 0.

    Its mean is unbiased. Times the coefficient it is subtracted from the token's reward, as in the reference code
    (`apply_kl_penalty` in `verl/trainer/ppo/ray_trainer.py`).
    """
    return torch.where(mask, logps - ref_logps, 0)

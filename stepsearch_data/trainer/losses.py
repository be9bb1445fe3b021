"""StePPO in pure tensor functions. Every tensor has the shape (rows, tokens) unless it says otherwise.

`mask` is true where the policy itself wrote the token. What the engine wrote (observations) and padding
are false, and have no influence on any result: no loss, no value target, no KL, no place in a mean, and
GAE steps over them as if the policy's tokens were neighbours. The release masks its policy loss only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]
Steps = Sequence[tuple[int, float]]
"""Rewards of one row: (token, reward) for each round that earned one, and for the last token."""


def masked_mean(values: Tensor, mask: Tensor, total: Total = lambda summed: summed) -> Tensor:
    """Mean over the masked tokens of all rows, a scalar; 0 where there is none.

    `total` sums over processes, so that each has the mean of all their rows.
    """
    return total(torch.where(mask, values, 0).sum()) / total(mask.sum()).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, total: Total = lambda summed: summed) -> Tensor:
    """Values with mean 0 and variance 1 over the masked tokens, 0 elsewhere."""
    centred = torch.where(mask, values - masked_mean(values, mask, total), 0)
    return centred * torch.rsqrt(masked_mean(centred**2, mask, total) + 1e-8)


def token_rewards(steps: Sequence[Steps], mask: Tensor) -> Tensor:
    """Rewards on tokens: r_step^t on the last token of search round t, r on the last token of the response.

    Those of one token add up (the release assigns, and so loses a step reward that shares the last
    token). Raises ValueError for a reward on a token that the policy did not write.
    """
    rewards = torch.zeros(mask.shape, device=mask.device)
    for row, earned in enumerate(steps):
        for token, reward in earned:
            if not mask[row, token]:
                raise ValueError(f"row {row}: token {token} is not the policy's, it cannot earn {reward}")
            rewards[row, token] += reward
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 1.0) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation (arXiv 1506.02438), both 0 outside the mask.

    δ_i = r_i + γ V_{i+1} − V_i and A_i = δ_i + γλ A_{i+1}, where i + 1 is the policy's *next own* token and what
    follows the last one is worth nothing; returns are A + V. With γ = λ = 1 a return is the sum of all later rewards.
    """
    advantages = torch.zeros_like(values)
    following, ahead = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for token in reversed(range(values.shape[1])):
        own = mask[:, token]
        delta = rewards[:, token] + gamma * following - values[:, token]
        ahead = torch.where(own, delta + gamma * lam * ahead, ahead)
        following = torch.where(own, values[:, token], following)
        advantages[:, token] = torch.where(own, ahead, 0)
    return advantages, torch.where(mask, advantages + values, 0)


def policy_loss(
    logps: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float, weights: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """PPO's clipped loss (arXiv 1707.06347, eq. 7), and the share of tokens that the clip holds; two scalars.

    −w min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) with ρ = exp(logps − old), mean over the masked tokens of all rows.
    """
    ratio = torch.exp(torch.where(mask, logps - old, 0))
    free, held = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return -masked_mean(weights * torch.minimum(free, held), mask), masked_mean((held < free).float(), mask)


def importance_weights(logps: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """min(π / μ, cap) of each token that another engine, μ, is known to have sampled (arXiv 1802.01561), else 1."""
    return torch.exp(torch.where(sampled.isfinite(), logps - sampled, 0)).clamp(max=cap)


def mismatch(logps: Tensor, sampled: Tensor, cap: float, total: Total = lambda summed: summed) -> Tensor:
    """How far the trainer π is from the engine μ that sampled, as means over the tokens of which that is known.

    |log π − log μ|, the share of ratios π / μ above the cap, and an estimate of KL(μ ‖ π) that is never negative:
    π / μ − 1 − log π / μ (k3). Last how many tokens there are; all are 0 where there is none.
    """
    known = sampled.isfinite()
    apart = (logps - sampled)[known]
    *sums, count = total(
        torch.stack([apart.abs().sum(), (apart.exp() > cap).sum(), (apart.expm1() - apart).sum(), known.sum()])
    )
    return torch.stack([*(each / count.clamp(min=1) for each in sums), count])


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half of the squared error, the larger of that of V and of V kept within `clip` of the old V; a scalar."""
    values, old = torch.where(mask, values, 0), torch.where(mask, old, 0)
    near = old + (values - old).clamp(-clip, clip)
    worse = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return 0.5 * masked_mean(worse, mask)


def kl(logps: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Estimate of KL(policy ‖ reference) on each token that the policy sampled: logps − reference (k1), else 0.

    Its mean is unbiased. Times the coefficient it is taken off the token's reward, as in the release
    (`apply_kl_penalty` in `verl/trainer/ppo/ray_trainer.py`).
    """
    return torch.where(mask, logps - reference, 0)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 − Var(returns − values) / Var(returns) over the masked tokens, a scalar; 0 where returns do not vary."""

    def variance(of: Tensor) -> Tensor:
        return masked_mean((of - masked_mean(of, mask)) ** 2, mask)

    spread = variance(returns)
    return torch.where(spread > 0, 1 - variance(returns - values) / spread.clamp(min=1e-12), 0)

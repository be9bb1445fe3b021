"""Every number here was computed by hand, or by a plain loop in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from stepsearch_data.trainer import losses

T, F = True, False


def test_a_mean_counts_masked_tokens_of_all_rows_alike() -> None:
    values, mask = torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]]), torch.tensor([[T, T, F], [T, F, F]])
    assert losses.masked_mean(values, mask).item() == 3.0
    assert losses.masked_mean(values, torch.zeros_like(mask)).item() == 0.0


def test_whitened_values_have_mean_0_and_variance_1_where_the_mask_is_true() -> None:
    values, mask = torch.tensor([[1.0, 3.0, 99.0], [5.0, 99.0, 7.0]]), torch.tensor([[T, T, F], [T, F, T]])
    white = losses.masked_whiten(values, mask)
    # mean 4, variance (9 + 1 + 1 + 9) / 4 = 5
    expected = [[-3 / math.sqrt(5), -1 / math.sqrt(5), 0.0], [1 / math.sqrt(5), 0.0, 3 / math.sqrt(5)]]
    torch.testing.assert_close(white, torch.tensor(expected))


def test_values_are_whitened_over_all_processes() -> None:
    """Two processes with a row each: `all_reduce` adds what the other one holds."""
    values, mask = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.ones(2, 2, dtype=torch.bool)
    others = iter([torch.tensor(12.0), torch.tensor(2), torch.tensor(10.0), torch.tensor(2)])
    alone = losses.masked_whiten(values[:1], mask[:1], all_reduce=lambda local: local + next(others))
    torch.testing.assert_close(alone, losses.masked_whiten(values, mask)[:1])


def test_without_discount_a_return_is_the_sum_of_all_later_rewards() -> None:
    rewards = torch.tensor([[0.0, 0.5, 0.0, 0.0, 1.0]])
    mask = torch.tensor([[T, T, F, T, T]])
    values = torch.tensor([[0.1, 0.2, 77.0, 0.3, 0.4]])
    advantages, returns = losses.gae(rewards, values, mask)
    torch.testing.assert_close(returns, torch.tensor([[1.5, 1.5, 0.0, 1.0, 1.0]]))
    torch.testing.assert_close(advantages, torch.tensor([[1.4, 1.3, 0.0, 0.7, 0.6]]))


def test_gae_discounts_over_the_policys_own_tokens_only() -> None:
    """γ = 0.5, λ = 0.8, by hand from the last token; the observation in between is stepped over."""
    rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 9.0, 1.0]])
    advantages, returns = losses.gae(rewards, values, torch.tensor([[T, F, T]]), gamma=0.5, lam=0.8)
    last = 2.0 + 0.5 * 0 - 1.0  # δ = 1
    first = (1.0 + 0.5 * 1.0 - 0.5) + 0.5 * 0.8 * last  # δ = 1, A = 1.4
    torch.testing.assert_close(advantages, torch.tensor([[first, 0.0, last]]))
    torch.testing.assert_close(returns, torch.tensor([[first + 0.5, 0.0, last + 1.0]]))


def test_gae_by_turns_bootstraps_where_a_turn_ends() -> None:
    """γ = 0.5, λ = 0.8, by hand: two turns of two tokens, an observation between them."""
    rewards, values = torch.tensor([[0.0, 1.0, 0.0, 0.0, 2.0]]), torch.tensor([[0.5, 0.25, 9.0, 1.0, 3.0]])
    mask = torch.tensor([[T, T, F, T, T]])
    advantages, returns = losses.gae(rewards, values, mask, gamma=0.5, lam=0.8, by_turns=True)
    second = [2.0 - 1.0, 2.0 - 3.0]  # the reward to the end of the text, minus V
    first = [1.0 + 0.5 * 1.0 - value + 0.5 * 0.8 * second[0] for value in (0.5, 0.25)]
    torch.testing.assert_close(advantages, torch.tensor([[*first, 0.0, *second]]))
    torch.testing.assert_close(returns, torch.where(mask, advantages + values, 0))
    whole = losses.gae(rewards, values, mask), losses.gae(rewards, values, mask, by_turns=True)
    torch.testing.assert_close(whole[0], whole[1])  # with γ = λ = 1 they are the same


def test_a_turn_is_compared_with_what_its_group_still_earned_from_that_turn_on() -> None:
    """γ = 0.5, groups of two, by hand: turns of one and two tokens; the second of each group ends a turn earlier."""
    rewards = torch.tensor([[0.0, 1.0, 99.0, 4.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.25, 0.25, 0.5], [0.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[T, T, F, T], [T, F, F, F], [F, T, T, T], [F, F, F, F]])
    advantages, returns = losses.group_advantages(rewards, mask, group=2, gamma=0.5)
    first = 1 + 0.5 * 4.0
    torch.testing.assert_close(returns, torch.tensor([[first, first, 0, 4], [2, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]]))
    means = [(first + 2) / 2, (4 + 0) / 2], [(1 + 0) / 2]  # of a group's turns; who has ended earns 0
    expected = [
        [first - means[0][0], first - means[0][0], 0, 4 - means[0][1]],
        [2 - means[0][0], 0, 0, 0],
        [0, 1 - means[1][0], 1 - means[1][0], 1 - means[1][0]],
        [0, 0, 0, 0],
    ]
    torch.testing.assert_close(advantages, torch.tensor(expected))


def test_gae_is_that_of_the_sequence_with_the_observations_taken_out() -> None:
    generator = torch.Generator().manual_seed(3)
    rewards, values = (torch.randn(1, 30, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(1, 30, generator=generator) < 0.6
    rewards = rewards * mask
    full = losses.gae(rewards, values, mask, gamma=0.97, lam=0.9)
    own = losses.gae(
        rewards[mask][None], values[mask][None], torch.ones(1, int(mask.sum()), dtype=torch.bool), 0.97, 0.9
    )
    for among, alone in zip(full, own, strict=True):
        torch.testing.assert_close(among[mask], alone[0])


def test_the_policy_loss_stops_where_the_clip_does() -> None:
    """ε = 0.2. Ratios 1.5 and 0.5, advantages of both signs: min(ρA, clip(ρ)A)."""
    logps = torch.log(torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.0]]))
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, 3.0]])
    loss, clipped = losses.policy_loss(
        logps, torch.zeros(1, 5), advantages, torch.tensor([[T, T, T, T, F]]), cliprange=0.2
    )
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    assert clipped.item() == 0.5  # the first and the fourth


def test_the_gradient_of_a_clipped_token_is_zero() -> None:
    logps = torch.log(torch.tensor([[1.5, 1.1]])).requires_grad_()
    losses.policy_loss(logps, torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[T, T]]), cliprange=0.2)[0].backward()
    assert logps.grad is not None
    assert logps.grad.tolist() == [[0.0, pytest.approx(-1.1 / 2)]]


def test_the_value_loss_takes_the_larger_error() -> None:
    values, old = torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    returns = torch.tensor([[2.0, 3.0, 0.0]])
    # token 0: (1 − 2)² = 1, kept to 0.5: 2.25; token 1: 0, kept to 1.5: 2.25
    loss = losses.value_loss(values, old, returns, torch.tensor([[T, T, F]]), cliprange_value=0.5)
    assert loss.item() == pytest.approx(0.5 * (2.25 + 2.25) / 2)


def test_kl_is_the_difference_of_log_probabilities_on_own_tokens() -> None:
    result = losses.kl_penalty(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, 5.0]]), torch.tensor([[T, F]]))
    assert result.tolist() == [[0.5, 0.0]]


@pytest.mark.parametrize("garbage", [1e9, float("nan"), float("inf")])
def test_what_stands_outside_of_the_mask_changes_nothing(garbage: float) -> None:
    """Not a digit: not in a loss, an advantage, a return or a gradient."""
    generator = torch.Generator().manual_seed(5)
    mask = torch.rand(4, 12, generator=generator) < 0.5
    clean = [torch.randn(4, 12, generator=generator) for _ in range(4)]

    def results(tensors: list[Any]) -> list[Any]:
        logps, old, values, others = tensors
        logps, values = logps.clone().requires_grad_(), values.clone().requires_grad_()
        rewards = torch.where(mask, others, 0)
        advantages, returns = losses.gae(rewards, values.detach(), mask)
        white = losses.masked_whiten(advantages, mask)
        loss, clipped = losses.policy_loss(logps, old, white, mask, 0.2)
        error = losses.value_loss(values, old, returns, mask, 0.5)
        (loss + error).backward()
        assert logps.grad is not None
        assert values.grad is not None
        found = [advantages, returns, white, loss, clipped, error, losses.kl_penalty(logps, old, mask)]
        found += losses.group_advantages(others, mask, group=2)
        return [each.detach() for each in (*found, logps.grad, values.grad)]

    dirty = [torch.where(mask, tensor, garbage) for tensor in clean]
    for one, other in zip(results(clean), results(dirty), strict=True):
        assert torch.equal(one, other)

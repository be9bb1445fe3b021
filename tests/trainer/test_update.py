"""A whole update against one written out in plain loops and float64."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from stepsearch_data.core.errors import TrainError
from stepsearch_data.trainer.batch import Batch, collate
from stepsearch_data.trainer.causal_lm import trunk_of
from stepsearch_data.trainer.config import PPOConfig
from stepsearch_data.trainer.model import ActorCritic, Critic, ReferencePolicy
from stepsearch_data.trainer.search_env import Episode, Task
from stepsearch_data.trainer.update import compute_advantages, ppo_update

CONFIG = PPOConfig(
    gamma=0.9,
    lam=0.8,
    kl_coef=0.1,
    mini_batch_size=4,
    micro_batch_size=2,
    max_grad_norm=0.5,
    importance_sampling_cap=1.5,
)
LR, EPS = 1e-2, 1e-4  # with a smaller ε the first step is the sign of gradients that are nothing but rounding


def episodes(*, sampled: bool = False) -> list[Episode]:
    """Four rows of different lengths, observations inside, by the trainer's model or as if another had sampled them."""
    made = []
    generator = torch.Generator().manual_seed(11)
    for prompt, parts in ((2, (3, 2, 4)), (4, (2,)), (1, (1, 5, 1, 1, 2)), (3, (4, 4, 1))):
        episode = Episode(Task("q", "", "", ()), torch.randint(3, 20, (prompt,), generator=generator).tolist())
        for at, length in enumerate(parts):
            tokens = torch.randint(3, 20, (length,), generator=generator).tolist()
            episode.append(tokens, "", by_policy=at % 2 == 0)
        if sampled:
            episode.sampling_logps = (-2 - 3 * torch.rand(sum(episode.response_mask), generator=generator)).tolist()
        made.append(episode)
    return made


def batched(*, sampled: bool = False) -> Batch:
    return collate(episodes(sampled=sampled), REWARDS, pad=0, device=torch.device("cpu"))


REWARDS = [[(2, 0.5), (8, 1.0)], [(1, -1.0)], [(0, 0.25), (6, -0.5), (9, 2.0)], [(8, 0.1)]]


@pytest.fixture
def critic(policy: Any) -> Any:
    torch.manual_seed(2)
    return Critic(trunk_of(AutoModelForCausalLM.from_config(policy.config)))


@pytest.fixture
def old_policy(policy: Any) -> Any:
    """The reference: other weights than the policy's, so that there is a KL."""
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other


def updated(
    policy: Any,
    critic: Any,
    old_policy: Any,
    config: PPOConfig = CONFIG,
    temperature: float = 1.0,
    *,
    sampled: bool = False,
) -> tuple[Any, Batch]:
    """The policy and critic after one update by the trainer's functions, and the batch."""
    accelerator = Accelerator(gradient_accumulation_steps=config.mini_batch_size // config.micro_batch_size, cpu=True)
    model = ActorCritic(copy.deepcopy(policy), copy.deepcopy(critic), temperature)
    batch = batched(sampled=sampled)
    compute_advantages(model, ReferencePolicy(old_policy, temperature), batch, config, accelerator)
    parts = {name: list(part.parameters()) for name, part in model.named_children()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, eps=EPS)
    rates = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    ppo_update(model, parts, accelerator.prepare(optimizer), rates, batch, config, accelerator)
    return model, batch


# ---- the same in loops


def by_hand(policy: Any, critic: Any, old_policy: Any, temperature: float, *, sampled: bool) -> Any:
    """One minibatch of all rows: every formula as it stands in the paper, row by row, token by token, in float64."""
    model = ActorCritic(copy.deepcopy(policy).double(), copy.deepcopy(critic).double())
    before = copy.deepcopy(old_policy).double()
    rows = []
    for episode, earned in zip(episodes(sampled=sampled), REWARDS, strict=True):
        ids = torch.tensor([episode.prompt_ids + episode.response_ids])
        own = [len(episode.prompt_ids) + at for at, mine in enumerate(episode.response_mask) if mine]
        logps, values = read(model, ids, own, temperature)
        reference = [each.item() for each in read(ActorCritic(before, model.critic), ids, own, temperature)[0]]
        old, estimates = [each.item() for each in logps], [each.item() for each in values]
        rewards = dict.fromkeys(own, 0.0)
        for token, reward in earned:
            rewards[len(episode.prompt_ids) + token] += reward
        shaped = [rewards[at] - CONFIG.kl_coef * (old[i] - reference[i]) for i, at in enumerate(own)]
        weights = [1.0] * len(own)
        if sampled:
            weights = [
                min(math.exp(old[i] - logp), CONFIG.importance_sampling_cap)
                for i, logp in enumerate(episode.sampling_logps)
            ]
        rows.append((logps, values, old, estimates, *gae(shaped, estimates), weights))
    flat = [advantage for row in rows for advantage in row[4]]
    mean = sum(flat) / len(flat)
    deviation = math.sqrt(sum((advantage - mean) ** 2 for advantage in flat) / len(flat) + 1e-8)
    loss = torch.zeros((), dtype=torch.float64)
    for logps, values, old, estimates, advantages, returns, weights in rows:
        for i, advantage in enumerate(advantages):
            white = (advantage - mean) / deviation
            ratio = torch.exp(logps[i] - old[i])
            loss -= weights[i] * torch.minimum(ratio * white, ratio.clamp(0.8, 1.2) * white) / len(flat)
            near = estimates[i] + (values[i] - estimates[i]).clamp(-CONFIG.cliprange_value, CONFIG.cliprange_value)
            loss += 0.5 * torch.maximum((values[i] - returns[i]) ** 2, (near - returns[i]) ** 2) / len(flat)
    loss.backward()
    for part in model.children():
        adamw(list(part.parameters()))
    return model


def read(model: Any, ids: Any, own: list[int], temperature: float) -> tuple[list[Any], list[Any]]:
    logits, values = model.policy(ids).logits[0] / temperature, model.critic(ids)[0]
    return [torch.log_softmax(logits[at - 1], dim=-1)[ids[0, at]] for at in own], [values[at - 1] for at in own]


def gae(rewards: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    advantages = [0.0] * len(rewards)
    for i in reversed(range(len(rewards))):
        after, ahead = (values[i + 1], advantages[i + 1]) if i + 1 < len(rewards) else (0.0, 0.0)
        advantages[i] = rewards[i] + CONFIG.gamma * after - values[i] + CONFIG.gamma * CONFIG.lam * ahead
    return advantages, [advantage + value for advantage, value in zip(advantages, values, strict=True)]


def adamw(parameters: list[Any]) -> None:
    """The first step of AdamW (arXiv 1711.05101), the gradient's norm clipped."""
    norm = math.sqrt(sum((p.grad**2).sum().item() for p in parameters if p.grad is not None))
    scale = min(1.0, CONFIG.max_grad_norm / (norm + 1e-6))
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                gradient = parameter.grad * scale
                parameter.mul_(1 - LR * 0.01)
                parameter.sub_(LR * gradient / (gradient.abs() + EPS))


@pytest.mark.parametrize(("temperature", "sampled"), [(1.0, False), (0.6, False), (1.0, True)])
def test_an_update_is_that_of_the_formulas(
    policy: Any, critic: Any, old_policy: Any, temperature: float, sampled: bool
) -> None:
    model, batch = updated(policy, critic, old_policy, temperature=temperature, sampled=sampled)
    held = batch.importance_weights == CONFIG.importance_sampling_cap
    assert (held.any() and (batch.importance_weights[batch.response_mask] < 1).any()) == sampled
    expected = by_hand(policy, critic, old_policy, temperature, sampled=sampled)
    for (name, got), wanted in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_the_first_ratio_is_1(policy: Any, critic: Any, old_policy: Any) -> None:
    """Before any step the policy is the one that sampled."""
    model, batch = ActorCritic(policy, critic), batched()
    compute_advantages(model, ReferencePolicy(old_policy), batch, CONFIG, Accelerator(cpu=True))
    for part in map(batch.rows, torch.arange(len(batch)).split(2)):
        torch.testing.assert_close(model(part.input_ids, part.response_mask).logps, part.old_logps)


def test_how_far_the_sampler_is_from_the_trainer(policy: Any, critic: Any, old_policy: Any) -> None:
    model = ActorCritic(policy, critic)
    for cap, sampled in ((1.5, False), (1.5, True), (0.0, True)):
        batch = batched(sampled=sampled)
        if sampled:
            batch.sampling_logps[tuple(batch.response_mask.nonzero()[0])] = torch.nan  # not told
        config = PPOConfig(**{**vars(CONFIG), "importance_sampling_cap": cap})
        told = compute_advantages(model, ReferencePolicy(old_policy), batch, config, Accelerator(cpu=True))
        apart = (batch.old_logps - batch.sampling_logps)[batch.sampling_logps.isfinite()].double().tolist()
        assert len(apart) == sampled * (batch.response_mask.sum() - 1)
        expected = {
            "sampling_logp_difference": sum(map(abs, apart)) / max(1, len(apart)),
            "sampling_logp_difference_max": max(map(abs, apart), default=0),
            "sampling_k3_kl": sum(math.exp(each) - 1 - each for each in apart) / max(1, len(apart)),
            "sampling_ratio_capped": sum(math.exp(each) > (cap or math.inf) for each in apart) / max(1, len(apart)),
        }
        assert {name: told[name] for name in expected if name in told} == pytest.approx(expected if sampled else {})
        assert (batch.importance_weights == 1).all() == (not sampled or not cap)


def test_what_an_older_policy_wrote_has_its_own_probabilities_for_the_ratio(
    policy: Any, critic: Any, old_policy: Any
) -> None:
    model, batch = ActorCritic(policy, critic), batched(sampled=True)
    reference = ReferencePolicy(old_policy)
    told = compute_advantages(model, reference, batch, CONFIG, Accelerator(cpu=True), behind=True)
    mask = batch.response_mask
    assert torch.equal(batch.old_logps[mask], batch.sampling_logps[mask])
    assert (batch.importance_weights == 1).all()
    of_reference = reference.logps(policy, batch.input_ids, mask)
    assert told["kl"] == pytest.approx((batch.sampling_logps - of_reference)[mask].mean().item(), abs=1e-6)


def test_what_the_model_told_when_it_sampled_is_not_computed_again(policy: Any, critic: Any, old_policy: Any) -> None:
    """The same batch and metrics come of it, without a pass of the policy."""
    model, expected, batch = ActorCritic(policy, critic), batched(), batched()
    given = (CONFIG, Accelerator(cpu=True))
    told = compute_advantages(model, ReferencePolicy(old_policy), expected, *given)
    read, mask = model(batch.input_ids, batch.response_mask), batch.response_mask
    batch.sampling_logps[mask] = read.logps[mask].detach()
    entropies = [row[own].tolist() for row, own in zip(read.entropy, mask, strict=True)]
    with torch.no_grad():
        policy.model.embed_tokens.weight.zero_()
    again = compute_advantages(model, ReferencePolicy(old_policy), batch, *given, entropies=entropies)
    assert again == pytest.approx(told, abs=1e-6)
    assert expected.sampling_logps.isnan().all()
    for name in vars(expected):
        torch.testing.assert_close(getattr(batch, name), getattr(expected, name), atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("whiten", [True, False])
def test_without_a_critic_advantages_are_against_the_group(policy: Any, old_policy: Any, whiten: bool) -> None:
    """Groups of two of the four rows, in loops; the KL is a part of what a turn earns. Nothing is told of a critic."""
    model, reference, batch = ActorCritic(policy, None), ReferencePolicy(old_policy), batched()
    config = replace(CONFIG, lam=1.0, group_size=2, whiten_advantages=whiten)
    told = compute_advantages(model, reference, batch, config, Accelerator(cpu=True))
    assert "explained_variance" not in told
    kl = batch.old_logps - reference.logps(policy, batch.input_ids, batch.response_mask)
    rewards = (batch.rewards - CONFIG.kl_coef * kl).tolist()
    turns = [runs(own) for own in batch.response_mask.tolist()]
    left = []
    for row, of_row in zip(rewards, turns, strict=True):
        earned = [sum(row[at] for at in turn) for turn in of_row]
        left.append([sum(CONFIG.gamma**n * each for n, each in enumerate(earned[k:])) for k in range(len(earned))])
    expected = torch.zeros_like(batch.rewards)
    for row, of_row in enumerate(turns):
        group = left[row // 2 * 2 : row // 2 * 2 + 2]
        for k, turn in enumerate(of_row):
            expected[row, turn] = left[row][k] - sum(each[k] for each in group if k < len(each)) / 2
    if whiten:
        own = expected[batch.response_mask]
        expected[batch.response_mask] = (own - own.mean()) / own.std(correction=0)
    torch.testing.assert_close(batch.advantages, expected, atol=1e-5, rtol=1e-4)


def runs(own: list[bool]) -> list[list[int]]:
    """The tokens of each turn."""
    return [[at for at, _ in group] for mine, group in groupby(enumerate(own), key=itemgetter(1)) if mine]


@pytest.mark.parametrize("cut", [{"micro_batch_size": 1}, {"micro_batch_size": 4}, {"micro_batch_tokens": 22}], ids=str)
def test_micro_batches_change_nothing(policy: Any, critic: Any, old_policy: Any, cut: dict[str, int]) -> None:
    torch.manual_seed(0)
    one, _ = updated(policy, critic, old_policy)
    torch.manual_seed(0)
    other, _ = updated(policy, critic, old_policy, PPOConfig(**{**vars(CONFIG), **cut}))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_observations_are_read_but_never_learnt(policy: Any, critic: Any, old_policy: Any) -> None:
    """A row's loss does not change with the logits at observation tokens: their gradient is exactly zero."""
    model, batch = ActorCritic(policy, critic), batched()
    compute_advantages(model, ReferencePolicy(old_policy), batch, CONFIG, Accelerator(cpu=True))
    read = model(batch.input_ids, batch.response_mask)
    for tensor in (batch.old_logps, batch.old_values, batch.advantages, batch.returns, *read):
        assert torch.equal(tensor[~batch.response_mask], torch.zeros_like(tensor[~batch.response_mask]))
        assert not torch.equal(tensor, torch.zeros_like(tensor))


def test_padding_is_no_part_of_a_row(policy: Any, critic: Any, old_policy: Any) -> None:
    model, batch = ActorCritic(policy, critic), batched()
    whole = model(batch.input_ids, batch.response_mask)
    for row in range(len(batch)):
        part = batch.rows(slice(row, row + 1))
        alone = model(part.input_ids, part.response_mask)
        width = part.input_ids.shape[1]
        torch.testing.assert_close(alone.logps[0], whole.logps[row, :width])
        torch.testing.assert_close(alone.values[0], whole.values[row, :width])


def test_a_loss_that_is_no_number_stops_before_the_weights_change(policy: Any, critic: Any, old_policy: Any) -> None:
    with torch.no_grad():
        next(critic.parameters()).fill_(float("nan"))
    kept = copy.deepcopy(policy.state_dict())
    with pytest.raises(TrainError, match="not finite"):
        updated(policy, critic, old_policy)
    assert all(torch.equal(kept[name], now) for name, now in policy.state_dict().items())

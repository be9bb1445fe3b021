"""One update of StePPO: the advantages of a batch of episodes, then clipped steps of policy and critic.

Without a critic (`PPOConfig.group_size`) advantages are against the group, and the policy alone steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from stepsearch_data.core.errors import TrainError
from stepsearch_data.trainer.batch import Batch
from stepsearch_data.trainer.config import PPOConfig
from stepsearch_data.trainer.distributed import micro_batches
from stepsearch_data.trainer.losses import (
    gae,
    group_advantages,
    importance_weights,
    kl_penalty,
    masked_mean,
    masked_whiten,
    policy_loss,
    value_loss,
)
from stepsearch_data.trainer.metrics import Metrics, explained_variance, sampling_mismatch
from stepsearch_data.trainer.model import ReferencePolicy


@torch.no_grad()
def compute_advantages(
    model: nn.Module,
    reference: ReferencePolicy,
    batch: Batch,
    config: PPOConfig,
    accelerator: Accelerator,
    *,
    behind: bool = False,
    entropies: Sequence[Sequence[float]] | None = None,
) -> Metrics:
    """Fill in what `Batch` leaves to this function, under the weights that sampled the batch.

    With `behind` these are not the model's weights, but older ones: their log-probabilities are those of the sampler.
    With `entropies` the sampler was the model itself, as precise as its forward pass: what it told of the policy's
    tokens in each row need not be computed again.
    """
    all_reduce, policy = partial(accelerator.reduce, reduction="sum"), accelerator.unwrap_model(model).policy
    of_reference, entropy = torch.zeros_like(batch.rewards), torch.zeros_like(batch.rewards)
    for rows in micro_batches(batch, config, accelerator):
        part = batch.rows(rows)
        width = part.input_ids.shape[1]
        output = model(part.input_ids, part.response_mask, policy=entropies is None)
        with accelerator.autocast():
            of_reference[rows, :width] = reference.logps(policy, part.input_ids, part.response_mask)
        batch.old_logps[rows, :width], batch.old_values[rows, :width] = output.logps, output.values
        entropy[rows, :width] = output.entropy
    if entropies is not None:
        batch.old_logps = batch.sampling_logps.nan_to_num(0)
        batch.sampling_logps = torch.full_like(batch.old_logps, torch.nan)  # no other engine sampled
        entropy[batch.response_mask] = entropy.new_tensor([each for row in entropies for each in row])
    cap = config.importance_sampling_cap
    mismatch = sampling_mismatch(batch, cap, accelerator, all_reduce)
    if behind:
        batch.old_logps = torch.where(batch.sampling_logps.isfinite(), batch.sampling_logps, batch.old_logps)
    elif cap:
        batch.importance_weights = importance_weights(batch.old_logps, batch.sampling_logps, cap)
    kl = kl_penalty(batch.old_logps, of_reference, batch.response_mask)
    mask, rewards = batch.response_mask, batch.rewards - config.kl_coef * kl
    if config.has_critic:
        batch.advantages, batch.returns = gae(
            rewards, batch.old_values, mask, config.gamma, config.lam, by_turns=config.turn_level_gae
        )
    else:
        batch.advantages, batch.returns = group_advantages(rewards, mask, config.group_size, config.gamma)
    metrics = {
        "kl": masked_mean(kl, mask, all_reduce).item(),
        "entropy": masked_mean(entropy, mask, all_reduce).item(),
        "return": masked_mean(batch.returns, mask, all_reduce).item(),
    }
    if config.has_critic:
        metrics["explained_variance"] = explained_variance(batch.old_values, batch.returns, mask).item()
    if config.whiten_advantages:
        batch.advantages = masked_whiten(batch.advantages, mask, all_reduce)
    return metrics | mismatch


def ppo_update(
    model: nn.Module,
    parameters: dict[str, list[nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    batch: Batch,
    config: PPOConfig,
    accelerator: Accelerator,
) -> Metrics:
    """Take PPO's steps on a batch whose advantages are known; return means of the losses.

    `parameters` are those of policy and critic, whose gradients are clipped apart. A mini batch's loss is the mean
    over all its tokens, however it is cut into micro batches and spread over processes. Raises TrainError for a loss
    that is not finite, before it reaches the weights.
    """
    seen: defaultdict[str, list[float]] = defaultdict(list)
    size = config.mini_batch_size // accelerator.num_processes
    divided = accelerator.gradient_accumulation_steps  # accelerate and DeepSpeed divide each loss by it
    for rows in (rows for _ in range(config.num_ppo_epochs) for rows in torch.randperm(len(batch)).split(size)):
        mini = batch.rows(rows)
        tokens = accelerator.reduce(mini.response_mask.sum(), reduction="sum") / accelerator.num_processes
        means: defaultdict[str, Tensor] = defaultdict(partial(torch.zeros, (), device=accelerator.device))
        parts = micro_batches(mini, config, accelerator)
        for at, micro in enumerate(map(mini.rows, parts), 1):
            accelerator.sync_gradients = at == len(parts)
            with _alone(model, accelerator):
                share = micro.response_mask.sum() / tokens.clamp(min=1)
                loss, of_micro = _loss(model, micro, config)
                for name, value in of_micro.items():
                    means[name] = means[name] + value * share
                if accelerator.sync_gradients:
                    told = _finite(means)
                accelerator.backward(loss * share * divided)
        for name, of_part in parameters.items():
            norm = accelerator.clip_grad_norm_(of_part, config.max_grad_norm)
            seen[f"{name}_grad_norm"].append(float(norm or 0))  # DeepSpeed's: of both together
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        for name, mean in told.items():
            seen[name].append(mean)
    return {name: sum(values) / len(values) for name, values in seen.items()}


def _alone(model: nn.Module, accelerator: Accelerator) -> AbstractContextManager[None]:
    """Have gradients be exchanged after the last micro batch only.

    FSDP2 exchanges those of each: else every GPU would keep whole gradients of all weights until the last.
    """
    return nullcontext() if accelerator.sync_gradients or accelerator.is_fsdp2 else accelerator.no_sync(model)


def _loss(model: nn.Module, batch: Batch, config: PPOConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a micro batch, and its metrics."""
    mask, regularised = batch.response_mask, config.entropy_coef > 0
    output = model(batch.input_ids, mask, entropy=regularised)
    loss, clipfrac = policy_loss(
        output.logps, batch.old_logps, batch.advantages, mask, config.cliprange, batch.importance_weights
    )
    metrics = {"policy_loss": loss.detach(), "clipfrac": clipfrac}
    if config.has_critic:
        of_critic = value_loss(output.values, batch.old_values, batch.returns, mask, config.cliprange_value)
        metrics["value_loss"] = of_critic.detach()
        loss = loss + of_critic  # they share no weight, so a coefficient between them would mean nothing
    if regularised:
        loss = loss - config.entropy_coef * masked_mean(output.entropy, mask)
    return loss, metrics


def _finite(means: dict[str, Tensor]) -> Metrics:
    """Return a mini batch's means as numbers. It waits for the device, once per step.

    Raises TrainError where one is not finite.
    """
    told = dict(zip(means, torch.stack([*means.values()]).tolist(), strict=True))
    if not all(map(math.isfinite, told.values())):
        raise TrainError(
            f"the loss is not finite ({', '.join(f'{name} {value:.3g}' for name, value in told.items())})",
            "lower the learning rate or the clip range, or train in float32; the last checkpoint is intact",
        )
    return told

"""One update of StePPO: the advantages of a batch of episodes, then clipped steps of policy and critic."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from stepsearch_data.core.errors import TrainError
from stepsearch_data.trainer.batch import Batch
from stepsearch_data.trainer.config import PPO
from stepsearch_data.trainer.losses import (
    Total,
    explained_variance,
    gae,
    importance_weights,
    kl,
    masked_mean,
    mismatch,
    policy_loss,
    value_loss,
    whiten,
)
from stepsearch_data.trainer.model import Reference

Metrics = dict[str, float]


@torch.no_grad()
def look_back(
    model: nn.Module, policy: nn.Module, reference: Reference, batch: Batch, config: PPO, accelerator: Accelerator
) -> Metrics:
    """Fill in the batch's `logps`, `values`, `advantages`, `returns` and `weights`, under the weights that sampled it.

    `policy` is the policy inside of `model`.
    """
    divergence, entropy = torch.zeros_like(batch.rewards), torch.zeros_like(batch.rewards)
    for rows in batch.by_length().split(config.micro):
        part = batch.rows(rows)
        width = part.tokens.shape[1]
        read = model(part.tokens, part.attention, part.own)
        with accelerator.autocast():
            before = reference.logps(policy, part.tokens, part.attention, part.own)
        batch.logps[rows, :width], batch.values[rows, :width] = read.logps, read.values
        divergence[rows, :width], entropy[rows, :width] = kl(read.logps, before, part.own), read.entropy
    rewards = batch.rewards - config.kl * divergence
    batch.advantages, batch.returns = gae(rewards, batch.values, batch.own, config.gamma, config.lam)
    metrics = {
        "kl": masked_mean(divergence, batch.own, _total(accelerator)).item(),
        "entropy": masked_mean(entropy, batch.own, _total(accelerator)).item(),
        "return": masked_mean(batch.returns, batch.own, _total(accelerator)).item(),
        "explained_variance": explained_variance(batch.values, batch.returns, batch.own).item(),
    }
    if config.whiten:
        batch.advantages = whiten(batch.advantages, batch.own, _total(accelerator))
    if config.importance_cap:
        batch.weights = importance_weights(batch.logps, batch.sampled, config.importance_cap)
    return metrics | _apart(batch, config.importance_cap, accelerator)


def _apart(batch: Batch, cap: float, accelerator: Accelerator) -> Metrics:
    """How far the trainer is from the engine that sampled; nothing where the trainer's model did."""
    mean, capped, k3, count = mismatch(batch.logps, batch.sampled, cap or math.inf, _total(accelerator)).tolist()
    if not count:  # in no process
        return {}
    furthest = (batch.logps - batch.sampled).nan_to_num(0).abs().max()
    most = accelerator.gather(furthest).max().item()
    return {"mismatch": mean, "mismatch_max": most, "mismatch_k3": k3, "truncated": capped}


def improve(
    model: nn.Module,
    parts: dict[str, list[nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    batch: Batch,
    config: PPO,
    accelerator: Accelerator,
) -> Metrics:
    """PPO's epochs over a batch that `look_back` has filled in; means of the losses.

    `parts` are the parameters of policy and critic, whose gradients are clipped apart. A minibatch's loss is the mean
    over all its tokens, however it is cut into micro batches and spread over processes. Raises TrainError for a loss
    that is no number, before it reaches the weights.
    """
    seen: defaultdict[str, list[float]] = defaultdict(list)
    size = config.minibatch // accelerator.num_processes
    steps = size // config.micro
    for mini in (mini for _ in range(config.epochs) for mini in batch.split(size, _shuffled(batch))):
        tokens = _total(accelerator)(mini.own.sum()) / accelerator.num_processes
        for part in mini.split(config.micro, mini.by_length()):
            with accelerator.accumulate(model):
                share = part.own.sum() / tokens.clamp(min=1)
                loss, means = _loss(model, part, config)
                accelerator.backward(loss * share * steps)  # accelerate takes the mean over micro batches
                if accelerator.sync_gradients:
                    for name, parameters in parts.items():
                        norm = accelerator.clip_grad_norm_(parameters, config.max_norm)
                        seen[f"{name}_norm"].append(float(norm or 0))  # DeepSpeed's: of both together
                optimizer.step()
                optimizer.zero_grad()
            for name, value in means.items():
                seen[name].append(value * share.item() * steps)
        schedule.step()
    return {name: sum(values) / len(values) for name, values in seen.items()}


def _loss(model: nn.Module, part: Batch, config: PPO) -> tuple[Tensor, Metrics]:
    read = model(part.tokens, part.attention, part.own)
    policy, clipped = policy_loss(read.logps, part.logps, part.advantages, part.own, config.clip, part.weights)
    critic = value_loss(read.values, part.values, part.returns, part.own, config.value_clip)
    loss = policy + critic  # they share no weight, so no coefficient between them means anything
    if config.entropy:
        loss = loss - config.entropy * masked_mean(read.entropy, part.own)
    means = {"policy_loss": policy.item(), "value_loss": critic.item(), "clipped": clipped.item()}
    if not torch.isfinite(loss):
        raise TrainError(
            f"the loss is no number ({', '.join(f'{name} {value:.3g}' for name, value in means.items())})",
            "lower the learning rate or the clip, or train in float32; the last checkpoint is whole",
        )
    return loss, means


def _shuffled(batch: Batch) -> Tensor:
    return torch.randperm(len(batch)).to(batch.tokens.device)


def _total(accelerator: Accelerator) -> Total:
    return lambda summed: accelerator.reduce(summed, reduction="sum")

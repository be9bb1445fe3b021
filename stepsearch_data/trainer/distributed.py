"""Several processes: batches cut evenly, means over all of them, and a policy in one piece where FSDP shards it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import PreTrainedModel

from stepsearch_data.core.errors import ConfigError, StepSearchError, TrainError
from stepsearch_data.trainer.batch import Batch
from stepsearch_data.trainer.config import PPOConfig
from stepsearch_data.trainer.metrics import Metrics


def set_batch_sizes(accelerator: Accelerator, rollouts: int, ppo: PPOConfig) -> None:
    """Have an optimiser step follow every mini batch; DeepSpeed, which clips by itself too, is told the same.

    Raises TrainError where batches cannot be cut evenly, ConfigError for what a group of rollouts does not allow.
    """
    world = accelerator.num_processes
    if rollouts % (ppo.group_size * world):
        raise TrainError(
            f"{rollouts} rollouts cannot be cut into groups of {ppo.group_size} on {world} processes",
            "choose schedule.rollout_batch_size as a multiple of ppo.group_size times the processes",
        )
    if not ppo.has_critic and (ppo.lam != 1 or ppo.turn_level_gae):
        raise ConfigError(
            "ppo.lam and ppo.turn_level_gae have no effect with ppo.group_size, which takes no values of a critic",
            "leave them out: ppo.gamma counts turns there",
        )
    if ppo.micro_batch_tokens:
        ppo = replace(ppo, micro_batch_size=1)
    if rollouts % ppo.mini_batch_size or ppo.mini_batch_size % (ppo.micro_batch_size * world):
        raise TrainError(
            f"{rollouts} rollouts cannot be cut into mini batches of {ppo.mini_batch_size}, and these over {world} "
            f"processes into micro batches of {ppo.micro_batch_size}",
            "choose schedule.rollout_batch_size as a multiple of ppo.mini_batch_size, that as one of "
            "ppo.micro_batch_size times the processes",
        )
    steps = ppo.mini_batch_size // world // ppo.micro_batch_size
    accelerator.gradient_accumulation_steps = steps
    if accelerator.distributed_type is DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": ppo.micro_batch_size,
            "gradient_accumulation_steps": steps,
            "gradient_clipping": ppo.max_grad_norm,
        }


def micro_batches(batch: Batch, ppo: PPOConfig, accelerator: Accelerator) -> list[Tensor]:
    """Cut a batch into the rows of each forward pass, longest first; as many on every process, which wait for another.

    All processes must call it.
    """
    if not ppo.micro_batch_tokens:
        return list(batch.by_length().split(ppo.micro_batch_size))
    parts = batch.cut(ppo.micro_batch_tokens)
    if accelerator.num_processes > 1:
        most = accelerator.gather(torch.tensor([len(parts)], device=accelerator.device)).max()
        parts = batch.cut(ppo.micro_batch_tokens, int(most))
    return parts


def mean_over_processes(accelerator: Accelerator, metrics: Metrics, weight: float = 1.0) -> Metrics:
    """Compute means over processes, by the weights of each."""
    if accelerator.num_processes == 1:
        return metrics
    values = torch.tensor([*metrics.values(), 1.0], device=accelerator.device) * weight
    *sums, total = accelerator.reduce(values, reduction="sum").tolist()
    return {name: value / total for name, value in zip(metrics, sums, strict=True)}


def is_float32(model: nn.Module, accelerator: Accelerator) -> bool:
    """Tell whether one process computes all in float32, so that text read in turns and at once differs by little."""
    exact = accelerator.distributed_type is DistributedType.NO and accelerator.mixed_precision == "no"
    return exact and all(each.dtype is torch.float32 for each in model.parameters())


@contextmanager
def failing_together(accelerator: Accelerator) -> Iterator[None]:
    """Raise what fails in the block, TrainError where it fails in another process, which would be waited for."""
    failure: StepSearchError | KeyboardInterrupt | None = None
    try:
        yield
    except (StepSearchError, KeyboardInterrupt) as error:
        failure = error
    failed = torch.tensor(float(failure is not None), device=accelerator.device)
    if accelerator.reduce(failed, reduction="sum"):
        raise failure or TrainError("rollouts failed in another process", "its own message says why")


class WholePolicy:
    """The policy in one piece, for rollouts and checkpoints. Made before accelerate prepares the model.

    Where FSDP trains it in parts, and computes in a type of its own, this is a copy; else the policy itself.
    """

    def __init__(self, policy: PreTrainedModel, accelerator: Accelerator) -> None:
        self._policy = policy
        self._sharded = accelerator.distributed_type is DistributedType.FSDP
        if self._sharded:
            dtype = _fsdp_type(accelerator)
            self._policy = copy.deepcopy(policy).eval().requires_grad_(requires_grad=False)
            for parameter in self._policy.parameters():
                parameter.data = parameter.data.to(dtype)  # buffers stay as they are, in FSDP too

    @torch.no_grad()
    def current(self, parameters: list[nn.Parameter]) -> PreTrainedModel:
        """Return the policy with the current values of these parameters. All processes must call it, or all wait."""
        if self._sharded:
            for whole, part in zip(self._policy.parameters(), parameters, strict=True):
                whole.copy_(part.full_tensor())
        return self._policy


def _fsdp_type(accelerator: Accelerator) -> torch.dtype | None:
    """Return the type that FSDP computes in, where it is not the weights' own.

    Gradients are added up and log-probabilities come out in float32 from now on; accelerate has bfloat16 for all.
    """
    plugin = accelerator.state.fsdp_plugin
    if plugin.mixed_precision_policy is None:
        return None
    precise = {"reduce_dtype": torch.float32, "output_dtype": None}
    plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, **precise)
    dtype: torch.dtype = plugin.mixed_precision_policy.param_dtype
    return dtype

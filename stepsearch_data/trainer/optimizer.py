"""One optimiser for policy and critic, each with a learning rate and a warm-up of its own."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from stepsearch_data.trainer.config import Schedule


def make_optimizer(
    policy: nn.Module, critic: nn.Module, schedule: Schedule, steps: int
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """Make AdamW and its schedule over so many optimiser steps, for the weights that are trained."""
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in policy.parameters() if p.requires_grad], "lr": schedule.learning_rate},
            {"params": [p for p in critic.parameters() if p.requires_grad], "lr": schedule.vf_learning_rate},
        ]
    )

    def rising(step: int, ratio: float) -> float:
        """Return the factor of a learning rate at a step: it rises in a line to 1, then stays."""
        return min(1.0, (step + 1) / max(1.0, ratio * steps))

    ratios = (schedule.warmup_ratio, schedule.vf_warmup_ratio)
    return optimizer, LambdaLR(optimizer, [partial(rising, ratio=ratio) for ratio in ratios])

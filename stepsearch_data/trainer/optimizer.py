"""One optimiser for policy and critic, where there is one, each with a learning rate and a warm-up of its own."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from stepsearch_data.trainer.config import Schedule


def make_optimizer(
    policy: nn.Module, critic: nn.Module | None, schedule: Schedule, steps: int
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """Make AdamW and its schedule over so many optimiser steps, for the weights that are trained."""
    trained = [(policy, schedule.learning_rate, schedule.warmup_ratio)]
    if critic is not None:
        trained.append((critic, schedule.vf_learning_rate, schedule.vf_warmup_ratio))
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in model.parameters() if p.requires_grad], "lr": rate} for model, rate, _ in trained]
    )

    def rising(step: int, ratio: float) -> float:
        """Return the factor of a learning rate at a step: it rises in a line to 1, then stays."""
        return min(1.0, (step + 1) / max(1.0, ratio * steps))

    return optimizer, LambdaLR(optimizer, [partial(rising, ratio=ratio) for *_, ratio in trained])

"""How held-out questions are measured while training: by rollouts that all processes share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from accelerate import Accelerator

from stepsearch_data.rewards import RewardConfig
from stepsearch_data.trainer.distributed import mean_over_processes
from stepsearch_data.trainer.episode_score import score_episode
from stepsearch_data.trainer.metrics import Metrics, episode_metrics
from stepsearch_data.trainer.search_env import Episode, Task


def held_out_metrics(
    play: Callable[[Sequence[Task]], list[Episode]],
    tasks: Sequence[Task],
    batch_size: int,
    rewards: RewardConfig,
    accelerator: Accelerator,
) -> Metrics:
    """Play all tasks, so many at a time over all processes, and average over them. Every process must call it.

    Exact match is told by hops, too, where they are known.
    """
    world = accelerator.num_processes
    mine, size = tasks[accelerator.process_index :: world], batch_size // world
    episodes: list[Episode] = []
    for first in range(0, math.ceil(len(tasks) / world), size):  # as often on every process
        episodes += play(mine[first : first + size])
    scored = [score_episode(episode, rewards) for episode in episodes]
    means = mean_over_processes(accelerator, episode_metrics(episodes, scored), len(mine))
    for hops in sorted({task.hops for task in tasks if task.hops}):
        ems = [each.scores.answer_em for task, each in zip(mine, scored, strict=True) if task.hops == hops]
        means |= mean_over_processes(accelerator, {f"em_{hops}_hops": sum(ems) / max(1, len(ems))}, len(ems))
    return {f"eval_{name}": value for name, value in means.items()}

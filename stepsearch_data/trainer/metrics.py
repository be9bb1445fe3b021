"""What an update is measured by, beside its losses: episodes, the critic, the engine that sampled, and time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from stepsearch_data.trainer.batch import Batch
from stepsearch_data.trainer.episode_score import EpisodeScore
from stepsearch_data.trainer.losses import AllReduce
from stepsearch_data.trainer.search_env import Episode

Metrics = dict[str, float]


def episode_metrics(episodes: Sequence[Episode], scored: Sequence[EpisodeScore]) -> Metrics:
    """Average over episodes: the parts of the reward, searches, lengths, and shares of how they ended."""
    ended = Counter(episode.ended for episode in episodes)
    scores = [each.scores for each in scored]
    count = max(1, len(episodes))

    def mean(values: Iterator[float]) -> float:
        return sum(values) / count

    return {
        "reward": mean(each.total for each in scored),
        "em": mean(score.answer_em for score in scores),
        "f1": mean(score.answer_correct for score in scores),
        "key": mean(score.search_key_score for score in scores),
        "gain": mean(sum(score.information_gain) for score in scores),
        "redundancy": mean(sum(score.redundancy_penalty) for score in scores),
        "format_ok": mean(score.format_ok for score in scores),
        "searches": mean(len(episode.searches) for episode in episodes),
        "invalid": mean(episode.invalid for episode in episodes),
        "answered": ended["answer"] / count,
        "own_tokens": mean(sum(episode.response_mask) for episode in episodes),
        "tokens": mean(len(episode.prompt_ids) + len(episode.response_ids) for episode in episodes),
    }


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Compute 1 − Var(returns − values) / Var(returns) over the masked tokens, a scalar; 0 for constant returns."""
    spread, left = (each[mask].var(correction=0) for each in (returns, returns - values))
    return torch.where(spread > 0, 1 - left / spread.clamp(min=1e-12), 0)


def sampling_mismatch(batch: Batch, cap: float, accelerator: Accelerator, all_reduce: AllReduce) -> Metrics:
    """Measure how far the trainer π is from the engine μ that sampled; empty where that is not known of any token.

    Mean and maximum of |log π − log μ|, an estimate of KL(μ ‖ π) that is never negative: π / μ − 1 − log π / μ (k3),
    and the share of ratios π / μ above the cap.
    """
    known = batch.sampling_logps.isfinite()
    apart = (batch.old_logps - batch.sampling_logps)[known]
    sums = [apart.abs().sum(), (apart.expm1() - apart).sum(), (apart.exp() > (cap or math.inf)).sum(), known.sum()]
    mean, k3, capped, count = all_reduce(torch.stack(sums)).tolist()
    if not count:  # in no process
        return {}
    furthest = (batch.old_logps - batch.sampling_logps).nan_to_num(0).abs().max()
    return {
        "sampling_logp_difference": mean / count,
        "sampling_logp_difference_max": accelerator.gather(furthest).max().item(),
        "sampling_k3_kl": k3 / count,
        "sampling_ratio_capped": capped / count,
    }


class Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: Metrics = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count what has passed since the last call."""
        now = time.perf_counter()
        self.seconds[f"seconds_{name}"] = now - self._last
        self._last = now

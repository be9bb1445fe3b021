"""What is told of every update: a live table with sample rollouts and signs of collapse, and experiment trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stepsearch_data.trainer.episode_score import EpisodeScore
from stepsearch_data.trainer.search_env import Episode

Callback = Callable[[Mapping[str, float], Sequence[Episode], Sequence[EpisodeScore]], None]
"""Told of every update: its metrics (held-out ones too, where it was evaluated), its episodes and their scores."""

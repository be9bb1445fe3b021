"""What is evaluated: anything that can play an episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from stepsearch_data.trainer.rollout import Retrieve
from stepsearch_data.trainer.search_env import Episode, Task


class Played(NamedTuple):
    """An episode, how many tokens the policy wrote in it, and why it was not played to its end, if so.

    Of a policy that calls tools, `messages` stand in place of the episode's text; `counts` are its calls but searches.
    """

    episode: Episode
    own_tokens: int
    refused: str = ""
    messages: list[dict[str, Any]] | None = None
    counts: Mapping[str, int] = {}


class Policy(Protocol):
    """Plays episodes, `batch` of them at a time."""

    batch: int

    def play(self, tasks: Sequence[Task], retrieve: Retrieve) -> list[Played]:
        """Play one episode per task, in their order. Raises TrainError, ProviderError, BudgetError, SearchError."""

    def describe(self) -> str:
        """Describe the progress in a few words, for the progress bar."""

    def usage(self) -> dict[str, float]:
        """Return what was used so far."""

"""What a search engine is to us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Found(NamedTuple):
    """A passage that an engine returned, with the engine's own score (higher is better)."""

    passage_id: str
    score: float


class SearchEngine(Protocol):
    """Answers batches of queries."""

    @property
    def name(self) -> str:
        """What `hits.engine` calls it."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Found]]:
        """For each query at most k passages, best first; an empty list when nothing matches.

        Same queries, same answers, whatever else is in the batch. Raises SearchError.
        """

"""Rollouts: the policy and the search engine in turn, many questions at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.search_env import Episode, Referee, Task

Retrieve = Callable[[Sequence[str], int], list[list[Paragraph]]]
"""Documents for each of the queries, at most k, best first. Raises SearchError where the engine is down."""


class Sampler(Protocol):
    """Writes turns for a batch of rows, which it remembers from turn to turn."""

    def begin(self, prompts: Sequence[list[int]]) -> None:
        """Start anew, a row a prompt."""

    def turn(self, budgets: Sequence[int]) -> list[list[int]]:
        """A turn of each row, at most its budget: tokens up to and with one that completes a stop or ends the text."""

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """Have these tokens stand for the last one of the row's turn."""

    def go_on(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """Keep these rows only, in this order, and let each read its observation. With no row left the batch ends."""


@runtime_checkable
class OtherSampler(Sampler, Protocol):
    """A sampler whose probabilities are not exactly those of the model that is trained."""

    def logps(self) -> list[list[float]]:
        """With which log-probabilities each row of the batch wrote its tokens."""


def roll_out(tasks: Sequence[Task], referee: Referee, sampler: Sampler, retrieve: Retrieve) -> list[Episode]:
    """One episode a task, in their order. Every search of a turn goes to the engine in one batch."""
    episodes = [referee.begin(task) for task in tasks]
    live = list(episodes)
    sampler.begin([episode.prompt for episode in live])
    while live:
        turns = sampler.turn([referee.budget(episode) for episode in live])
        for row, tail in enumerate(map(referee.tail, turns)):
            if tail:
                sampler.replace_last(row, tail)
        queries = [referee.turn(episode, turn) for episode, turn in zip(live, turns, strict=True)]
        asking = [(episode, query) for episode, query in zip(live, queries, strict=True) if query is not None]
        found = retrieve([query for _, query in asking], referee.limits.documents) if asking else []
        for (episode, query), documents in zip(asking, found, strict=True):
            referee.found(episode, query, documents)
        rows = [row for row, episode in enumerate(live) if not episode.ended]
        sampler.go_on(rows, [live[row].tokens[live[row].written :] for row in rows])
        live = [live[row] for row in rows]
    if isinstance(sampler, OtherSampler):
        for episode, logps in zip(episodes, sampler.logps(), strict=True):
            episode.logps = logps
    return episodes

"""Rollouts: the policy and the search engine in turn, many questions at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.search_env import Episode, SearchEnv, Task

Retrieve = Callable[[Sequence[str], int], list[list[Paragraph]]]
"""Documents for each of the queries, at most k, best first. Raises SearchError where the engine is down."""


class Sampler(Protocol):
    """Writes turns for a batch of rows, which it remembers from turn to turn."""

    def start(self, prompts: Sequence[list[int]]) -> None:
        """Begin a new batch, one row per prompt."""

    def generate(self, max_new_tokens: Sequence[int]) -> list[list[int]]:
        """Write a turn of each row: tokens up to and with one that completes a stop or ends the text."""

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """Have these tokens stand for the last one of the row's turn."""

    def extend(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """Keep these rows only, in this order, and append its observation to each. With no row the batch ends."""


@runtime_checkable
class ReportsLogps(Sampler, Protocol):
    """A sampler whose probabilities are not exactly those of the model that is trained."""

    def logps(self) -> list[list[float]]:
        """Tell with which log-probabilities each row of the batch wrote its tokens."""


def roll_out(tasks: Sequence[Task], env: SearchEnv, sampler: Sampler, retrieve: Retrieve) -> list[Episode]:
    """Play one episode per task, in their order. Every search of a turn goes to the engine in one batch."""
    episodes = [env.reset(task) for task in tasks]
    live = list(episodes)
    sampler.start([episode.prompt_ids for episode in live])
    while live:
        turns = sampler.generate([env.max_new_tokens(episode) for episode in live])
        for row, said in enumerate(map(env.replacement, turns)):
            if said:
                sampler.replace_last(row, said)
        queries = [env.step(episode, turn) for episode, turn in zip(live, turns, strict=True)]
        asking = [(episode, query) for episode, query in zip(live, queries, strict=True) if query is not None]
        found = retrieve([query for _, query in asking], env.limits.topk) if asking else []
        for (episode, query), documents in zip(asking, found, strict=True):
            env.observe(episode, query, documents)
        rows = [row for row, episode in enumerate(live) if not episode.ended]
        sampler.extend(rows, [live[row].response_ids[live[row].turn_end :] for row in rows])
        live = [live[row] for row in rows]
    if isinstance(sampler, ReportsLogps):
        for episode, logps in zip(episodes, sampler.logps(), strict=True):
            episode.sampling_logps = logps
    return episodes

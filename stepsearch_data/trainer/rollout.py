"""Rollouts: the policy and the search engine in turn, many questions at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
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


def roll_out(
    tasks: Sequence[Task], env: SearchEnv, sampler: Sampler, retrieve: Retrieve, pool: Executor | None = None
) -> list[Episode]:
    """Play one episode per task, in their order. Every search of a turn goes to the engine in one batch.

    With a pool each query goes by itself, and who waits for documents for longer than the last turn took is left
    behind: the others go on. `retrieve` is then called in several threads at once.
    """
    episodes = [env.reset(task) for task in tasks]
    searches = _Searches(retrieve, env.limits.topk, pool)
    live = list(range(len(tasks)))
    sampler.start([episode.prompt_ids for episode in episodes])
    while live:
        begun = time.monotonic()
        turns = sampler.generate([0 if at in searches.waiting else env.max_new_tokens(episodes[at]) for at in live])
        wrote = [(row, at) for row, at in enumerate(live) if at not in searches.waiting]
        for row, _ in wrote:
            if said := env.replacement(turns[row]):
                sampler.replace_last(row, said)
        asked = ((at, env.step(episodes[at], turns[row])) for row, at in wrote)
        queries = {at: query for at, query in asked if query is not None}
        rows = [row for row, at in enumerate(live) if not episodes[at].ended]
        for at, query, documents in searches.answers(queries, time.monotonic() - begun, len(rows)):
            env.observe(episodes[at], query, documents)
        rows = [row for row in rows if not episodes[live[row]].ended]
        live = [live[row] for row in rows]
        seen = (episodes[at].response_ids[episodes[at].turn_end :] for at in live)
        sampler.extend(rows, [[] if at in searches.waiting else each for at, each in zip(live, seen, strict=True)])
    if isinstance(sampler, ReportsLogps):
        for episode, logps in zip(episodes, sampler.logps(), strict=True):
            episode.sampling_logps = logps
    return episodes


class _Searches:
    """The searches of a batch of episodes, which are numbers here. `waiting` are those without an answer."""

    def __init__(self, retrieve: Retrieve, k: int, pool: Executor | None) -> None:
        self._retrieve, self._k, self._pool = retrieve, k, pool
        self.waiting: dict[int, tuple[str, Future[list[list[Paragraph]]]]] = {}

    def answers(
        self, queries: dict[int, str], patience: float, live: int
    ) -> Iterator[tuple[int, str, Sequence[Paragraph]]]:
        """Ask, and yield what is answered within so many seconds; at least one if all that live wait."""
        if self._pool is None:
            documents = self._retrieve(list(queries.values()), self._k) if queries else []
            yield from zip(queries, queries.values(), documents, strict=True)
            return
        for at, query in queries.items():
            self.waiting[at] = query, self._pool.submit(self._retrieve, [query], self._k)
        asked = [future for _, future in self.waiting.values()]
        if not wait(asked, patience).done and len(asked) == live:
            wait(asked, return_when=FIRST_COMPLETED)
        for at, (query, future) in [*self.waiting.items()]:
            if future.done():
                del self.waiting[at]
                if future.exception():
                    for _, other in self.waiting.values():
                        other.cancel()
                yield at, query, future.result()[0]

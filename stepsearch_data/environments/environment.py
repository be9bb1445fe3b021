"""The environment of a policy that calls tools: it searches, perhaps reads what it found, and answers.

Each search earns its reward at once. To read, by `open` and `find`, earns nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stepsearch_data.environments.config import EnvironmentConfig
from stepsearch_data.environments.reader import NO_READ_LEFT, Read, Reader
from stepsearch_data.environments.retriever import find
from stepsearch_data.rewards import Scores, read, transcript
from stepsearch_data.rewards.conversation import NO_QUERY, NO_TOOL, OVER, TOO_MANY
from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT, Texts
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.episode_score import score_task
from stepsearch_data.trainer.search_env import Task


class SearchResult(NamedTuple):
    """What a call returned: the text that the policy is shown; of a search also its documents, and what it earned.

    `documents` are as they were shown. `reward` is G - P as the preset weighs them, 0 where only the end settles it.
    """

    text: str
    documents: tuple[Paragraph, ...] = ()
    reward: float = 0.0
    gain: float = 0.0
    penalty: float = 0.0


class SearchEnvironment:
    """A question that is answered by searching. All rewards of a rollout sum to what `score_rollout` gives it.

    The format is right where the policy searched, and answered. A call that cannot be run is answered with words, and
    earns nothing. Raises ConfigError for tools that the template does not define.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self.config = config
        _ = config.tools and config.functions
        self._begin(Task("", "", "", ()))

    @property
    def settled_at_end(self) -> bool:
        """Tell whether the preset pays for searches only with the answer; `scores.step_rewards` has them then."""
        return self.config.rewards.settled_at_end

    @property
    def searches_left(self) -> int:
        """Return how many searches are still answered."""
        return 0 if self.scores else self.config.max_turns - len(self._searches) - self._waiting

    @property
    def counts(self) -> dict[str, int]:
        """Count the calls that read what searches have shown, as `opens` and `finds`, of the tools that are there."""
        return {f"{tool}s": sum(read.tool == tool for read in self.reads) for tool in self.config.tools}

    def reset(self, question: str | Task) -> str:
        """Begin with a question, of the store by its id, or of any task; return its text. Raises ConfigError."""
        self._begin(self.config.task(question) if isinstance(question, str) else question)
        return self.task.question

    def _begin(self, task: Task) -> None:
        self.task, self.scores = task, None
        self.results, self.rewards = [], []
        self.reads, self.invalid = [], 0
        self._searches = []
        self._waiting = 0
        self._reader = Reader(self.config.wording, self.config.page_length)
        self._called = None

    task: Task
    scores: Scores | None
    """Of the whole rollout; None before the answer."""
    results: list[SearchResult]
    """Of each search that was run."""
    rewards: list[float]
    """What was paid: for each search, and for the answer."""
    reads: list[Read]
    """Of each call of `open` and `find`, those that named nothing too: none is a search."""
    invalid: int
    """Calls that were answered with a warning."""
    _searches: list[tuple[str, Texts]]
    _waiting: int
    """Searches that have no answer yet."""
    _called: int | None
    """Calls of this turn; None where nobody tells when a turn begins."""

    def begin_turn(self) -> None:
        """Tell that all calls until the next time are of one message, of which `calls_per_turn` are run.

        Where nobody tells, each call is a turn of its own.
        """
        self._called = 0

    def search(self, query: str) -> SearchResult:
        """Search. Raises SearchError, StoreError."""
        return self._refused(query) or self._found(query, find(self.config, query).result())

    def open(self, identity: Any, page: Any = None) -> SearchResult:
        """Show a page of a document that a search has shown, from 1; by default the first."""
        return self._read("open", identity, page)

    def find(self, identity: Any, words: Any) -> SearchResult:
        """Show where words stand in a document that a search has shown."""
        return self._read("find", identity, words)

    async def call_async(self, name: str, arguments: Any) -> SearchResult:
        """Do what a model calls, by a function's name and arguments of any form. Raises SearchError, StoreError."""
        taken = self._taken(name, arguments)
        return await self._search(taken) if isinstance(taken, str) else taken

    def take(self, name: str, arguments: Any) -> SearchResult | str:
        """Do what a model calls, for a caller that searches itself: return a query that `show` is to answer."""
        taken = self._taken(name, arguments)
        self._waiting += isinstance(taken, str)
        return taken

    def show(self, query: str, documents: Sequence[Paragraph]) -> SearchResult:
        """Show what was found for a query that `take` has returned."""
        self._waiting -= 1
        return self._found(query, documents)

    async def search_async(self, query: str) -> SearchResult:
        """Search while other environments do: the engine gets all of their queries at once.

        What is found after the question was answered, or another one was begun, comes too late: it earns nothing.
        """
        return self._refused(query) or await self._search(query)

    async def _search(self, query: str) -> SearchResult:
        searches = self._searches
        self._waiting += 1
        try:
            documents: list[Paragraph] = await asyncio.wrap_future(find(self.config, query))
        finally:
            if searches is self._searches:
                self._waiting -= 1
        return SearchResult(OVER) if self.scores or searches is not self._searches else self._found(query, documents)

    def answer(self, text: str | None) -> Scores:
        """End with an answer, or without one; return the scores of the rollout. The reward is the last of `rewards`."""
        self.scores = self._score(text)
        self.rewards.append(sum(self.scores.step_rewards, self.scores.score) - sum(self.rewards))
        return self.scores

    def keep(self, searches: int) -> None:
        """Forget later searches than so many: their documents were not shown, as they did not fit."""
        del self._searches[searches:], self.results[searches:], self.rewards[searches:]

    def _taken(self, name: str, arguments: Any) -> SearchResult | str:
        config, given = self.config, arguments if isinstance(arguments, Mapping) else {}
        if name in config.tools:
            return self._read(name, given.get("id"), given.get("page" if name == "open" else "words"))
        if config.tools and name != config.functions[0]["name"]:
            return self._not_run() or self._no_tool(name)
        query = query_of(config, given)
        return self._refused(query) or query

    def _read(self, tool: str, identity: Any, what: Any) -> SearchResult:
        if refused := self._not_run():
            return refused
        if tool not in self.config.tools:
            return self._no_tool(tool)
        if len(self.reads) >= self.config.max_reads:
            return self._warned(NO_READ_LEFT)
        self.reads.append((self._reader.open if tool == "open" else self._reader.find)(identity, what))
        read = self.reads[-1]
        return self._warned(read.text) if read.refused else SearchResult(read.text)

    def _refused(self, query: str) -> SearchResult | None:
        if refused := self._not_run():
            return refused
        if not self.searches_left:
            return self._warned(NO_SEARCH_LEFT)
        return None if isinstance(query, str) and query.strip() else self._warned(NO_QUERY)

    def _not_run(self) -> SearchResult | None:
        """Count a call; tell where it is one too many."""
        if self.scores:
            return self._warned(OVER)
        if self._called is not None:
            self._called += 1
            if self.config.tools and self._called > self.config.calls_per_turn:
                return self._warned(TOO_MANY.format(self.config.calls_per_turn))
        return None

    def _no_tool(self, name: str) -> SearchResult:
        known = " or ".join(function["name"] for function in self.config.functions)
        return self._warned(NO_TOOL.format(" ".join(str(name).split())[:40], known))

    def _warned(self, text: str) -> SearchResult:
        self.invalid += 1
        return SearchResult(text)

    def _found(self, query: str, documents: Sequence[Paragraph]) -> SearchResult:
        shown = documents
        if self.config.tools:
            documents, shown = self._reader.show(documents)
        self._searches.append((query, [(document.title, document.text) for document in documents]))
        scores = self._score(None)
        parts = scores.step_rewards, scores.information_gain, scores.redundancy_penalty
        reward, gain, penalty = (each[-1] if each else 0.0 for each in parts)
        if self.settled_at_end:
            reward = 0.0
        text = self.config.wording.observation(shown)
        self.results.append(SearchResult(text, tuple(documents), reward, gain, penalty))
        self.rewards.append(reward)
        return self.results[-1]

    def _score(self, answer: str | None) -> Scores:
        return score_task(transcript(self._searches, answer), self.task, self.config.rewards)


def query_of(config: EnvironmentConfig, arguments: Any) -> str:
    """Return the query among a call's arguments, of several the first; empty where there is none."""
    query = arguments.get(config.wording.argument[0]) if isinstance(arguments, Mapping) else None
    query = query[0] if isinstance(query, list) and query else query
    return query if isinstance(query, str) else ""


def final_answer(text: str) -> str | None:
    """Return what a message says between `<answer>` and `</answer>`, as the template `tools` asks for; None without."""
    found = read(text).answer
    return found.text if found else None

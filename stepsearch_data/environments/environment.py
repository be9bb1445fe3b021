"""The environment of a policy that calls tools: it searches, and answers; each call earns its reward at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stepsearch_data.environments.config import EnvironmentConfig
from stepsearch_data.environments.retriever import find
from stepsearch_data.rewards import Scores, read, transcript
from stepsearch_data.rewards.conversation import NO_QUERY, OVER
from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT, Texts
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.episode_score import score_task
from stepsearch_data.trainer.search_env import Task


class SearchResult(NamedTuple):
    """What a search returned: the text that the policy is shown, its documents, and what it earned.

    `reward` is G - P as the preset weighs them, 0 where only the end settles it.
    """

    text: str
    documents: tuple[Paragraph, ...] = ()
    reward: float = 0.0
    gain: float = 0.0
    penalty: float = 0.0


class SearchEnvironment:
    """A question that is answered by searching. All rewards of a rollout sum to what `score_rollout` gives it.

    The format is right where the policy searched, and answered.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self.config = config
        self._begin(Task("", "", "", ()))

    @property
    def settled_at_end(self) -> bool:
        """Tell whether the preset pays for searches only with the answer; `scores.step_rewards` has them then."""
        return self.config.rewards.settled_at_end

    @property
    def searches_left(self) -> int:
        """Return how many searches are still answered."""
        return 0 if self.scores else self.config.max_turns - len(self._searches) - self._waiting

    def reset(self, question: str | Task) -> str:
        """Begin with a question, of the store by its id, or of any task; return its text. Raises ConfigError."""
        self._begin(self.config.task(question) if isinstance(question, str) else question)
        return self.task.question

    def _begin(self, task: Task) -> None:
        self.task, self.scores = task, None
        self.results, self.rewards = [], []
        self._searches = []
        self._waiting = 0

    task: Task
    scores: Scores | None
    """Of the whole rollout; None before the answer."""
    results: list[SearchResult]
    """Of each search that was run."""
    rewards: list[float]
    """What was paid: for each search, and for the answer."""
    _searches: list[tuple[str, Texts]]
    _waiting: int
    """Searches that have no answer yet."""

    def search(self, query: str) -> SearchResult:
        """Search. What cannot be searched is answered with words, and earns nothing. Raises SearchError, StoreError."""
        refusal = self._refusal(query)
        return SearchResult(refusal) if refusal else self._found(query, find(self.config, query).result())

    async def search_async(self, query: str) -> SearchResult:
        """Search while other environments do: the engine gets all of their queries at once.

        What is found after the question was answered, or another one was begun, comes too late: it earns nothing.
        """
        refusal = self._refusal(query)
        if refusal:
            return SearchResult(refusal)
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

    def _refusal(self, query: str) -> str:
        if self.scores:
            return OVER
        if not self.searches_left:
            return NO_SEARCH_LEFT
        return "" if isinstance(query, str) and query.strip() else NO_QUERY

    def _found(self, query: str, documents: Sequence[Paragraph]) -> SearchResult:
        self._searches.append((query, [(document.title, document.text) for document in documents]))
        scores = self._score(None)
        parts = scores.step_rewards, scores.information_gain, scores.redundancy_penalty
        reward, gain, penalty = (each[-1] if each else 0.0 for each in parts)
        if self.settled_at_end:
            reward = 0.0
        text = self.config.wording.observation(documents)
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

"""The environment of a policy that writes tags: a turn of text goes in, what the policy is shown next comes out."""

from __future__ import annotations

from typing import NamedTuple

from stepsearch_data.environments.config import EnvironmentConfig
from stepsearch_data.environments.retriever import retrieve
from stepsearch_data.rewards import Scores, read
from stepsearch_data.trainer.characters import END, decode, encode, in_characters
from stepsearch_data.trainer.episode_score import score_task
from stepsearch_data.trainer.search_env import SearchEnv, Task
from stepsearch_data.trainer.stops import cut_at_stop


class Turn(NamedTuple):
    """What follows a turn of the policy: what it is shown, what it earned, and whether the rollout has ended."""

    observation: str
    reward: float
    done: bool


class TaggedEnvironment:
    """The rules of the trainer here, for texts. Rewards of all turns sum to what `score_rollout` gives the rollout.

    A turn ends with its first `</search>` or `</answer>`; what follows is not read. Where the preset pays for searches
    only with the answer (`RewardConfig.settled_at_end`), the last turn has all rewards. Raises ConfigError for a
    template that calls tools.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self.config = config
        self._rules = SearchEnv(config.tag_wording, in_characters(config.limits), encode, decode, frozenset([END]))
        self.reset(Task("", "", "", ()))

    def reset(self, question: str | Task) -> str:
        """Begin with a question, of the store by its id, or of any task; return its text. Raises ConfigError."""
        task = self.config.task(question) if isinstance(question, str) else question
        self.episode = self._rules.reset(task)
        self.rewards: list[float] = []
        """What each turn earned."""
        return task.question

    @property
    def scores(self) -> Scores:
        """Return the scores of the rollout so far."""
        rewards = self.config.rewards
        return score_task(read(self.episode.text, rewards, self.episode.observations), self.episode.task, rewards)

    def step(self, text: str) -> Turn:
        """Take what the policy wrote in a turn; after the end, nothing. Raises SearchError, StoreError."""
        if self.episode.ended:
            return Turn("", 0.0, done=True)
        before = len(self.episode.observations)
        query = self._rules.step(self.episode, encode(cut_at_stop(text)))
        if query is not None:
            (documents,) = retrieve(self.config, [query])
            self._rules.observe(self.episode, query, documents)
        return self._turn(before)

    def _turn(self, before: int) -> Turn:
        done, scores = bool(self.episode.ended), self.scores
        earned = 0.0 if self.config.rewards.settled_at_end and not done else sum(scores.step_rewards)
        self.rewards.append(earned + (scores.score if done else 0.0) - sum(self.rewards))
        shown = [self.episode.text[start:end] for start, end in self.episode.observations[before:]]
        return Turn("".join(shown), self.rewards[-1], done)

"""OpenEnv 0.10: a server of environments, one per connection. Each step has its reward.

    python -m stepsearch_data.environments.openenv --store store --port 8000

The extra `openenv` installs it.
"""

from __future__ import annotations

import argparse
from functools import partial
from random import Random
from typing import Any

import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.environments.config import EnvironmentConfig
from stepsearch_data.environments.environment import SearchEnvironment


class SearchAction(Action):
    """A search, or the answer, which ends the episode."""

    query: str | None = Field(default=None, description="a short keyword query for one fact")
    answer: str | None = Field(default=None, description="the answer alone, in a few words")


class SearchObservation(Observation):
    """What the policy is shown: the question, then documents. `reward` is that of the step."""

    text: str = Field(description="the question, or what was found")
    searches_left: int = Field(description="how many searches are still answered")


class SearchServer(Environment[SearchAction, SearchObservation, State]):
    """Plays questions of a split. Nothing that a question is scored against leaves the server."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, config: EnvironmentConfig, split: str = "train") -> None:
        super().__init__()
        self._played, self._split, self._state = SearchEnvironment(config), split, State()

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, question_id: str | None = None, **_: Any
    ) -> SearchObservation:
        """Begin with a question of the split: that of this id, or one drawn with the seed. Raises ConfigError."""
        tasks = self._played.config.tasks(self._split)
        if question_id is None:
            question_id = Random(seed).choice(list(tasks))
        if question_id not in tasks:
            raise ConfigError(f"the split {self._split} has no question {question_id!r}", f"one is {next(iter(tasks))}")
        self._state = State(episode_id=episode_id)
        return self._shown(self._played.reset(tasks[question_id]))

    def step(
        self,
        action: SearchAction,
        timeout_s: float | None = None,  # noqa: ARG002 - OpenEnv passes it
        **_: Any,
    ) -> SearchObservation:
        """Search or answer. Raises ConfigError for an action that is neither and before `reset`, SearchError."""
        if not self._played.task.id:
            raise ConfigError("there is no question yet", "reset first")
        if (action.query is None) == (action.answer is None):
            raise ConfigError("an action has a query or an answer")
        self._state.step_count += 1
        if action.answer is not None and not self._played.scores:
            self._played.answer(action.answer)
            return self._shown("", self._played.rewards[-1])
        found = self._played.search(action.query or "")
        return self._shown(found.text, found.reward)

    @property
    def state(self) -> State:
        """Return how far the episode is."""
        return self._state

    def _shown(self, text: str, reward: float | None = None) -> SearchObservation:
        done = self._played.scores is not None
        return SearchObservation(text=text, searches_left=self._played.searches_left, reward=reward, done=done)


def application(config: EnvironmentConfig, split: str = "train", most: int = 64) -> Any:
    """Return the server's application, for so many connections at most. Raises StoreError, SourceError, ConfigError."""
    if config.tools:
        raise ConfigError("an action here is a search or an answer", "leave tools out")
    if not config.tasks(split):
        raise ConfigError(f"the split {split} of {config.store} holds no question", "another with --split")
    made = partial(SearchServer, config, split)
    return create_fastapi_app(made, SearchAction, SearchObservation, max_concurrent_envs=most)


def main() -> None:
    """Serve until a signal says stop."""
    parser = argparse.ArgumentParser(prog="stepsearch_data.environments.openenv", description="Serve environments.")
    for name in ("store", "engine", "preset"):
        parser.add_argument(f"--{name}", default=getattr(EnvironmentConfig, name))
    parser.add_argument("--split", default="train")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = vars(parser.parse_args())
    split, host, port = (options.pop(name) for name in ("split", "host", "port"))
    uvicorn.run(application(EnvironmentConfig.of(**options), split), host=host, port=port)


if __name__ == "__main__":
    main()

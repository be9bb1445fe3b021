"""OpenEnv's client plays on our server over its WebSocket."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment
from tests.environments.conftest import GOLD_QUERIES, QUESTION

if importlib.util.find_spec("openenv") is None:
    pytest.skip("needs openenv: make test-environments installs it", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")  # these are OpenEnv's own

from openenv.core import GenericEnvClient

from stepsearch_data.environments.openenv import SearchAction, SearchServer


@pytest.fixture(scope="module")
def server(config: EnvironmentConfig) -> Iterator[str]:
    """A server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "stepsearch_data.environments.openenv", "--store", config.store]
    process = subprocess.Popen([*command, "--port", str(port)], env=dict(os.environ))
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_every_step_has_its_reward(server: str, config: EnvironmentConfig) -> None:
    with GenericEnvClient(base_url=server).sync() as client:
        first = client.reset(question_id=QUESTION)
        results = [client.step({"query": query}) for query in GOLD_QUERIES]
        results.append(client.step({"answer": "Pesaro"}))
    played = SearchEnvironment(config)
    assert first.observation["text"] == played.reset(QUESTION)
    texts = [played.search(query).text for query in GOLD_QUERIES]
    played.answer("Pesaro")
    assert [result.reward for result in results] == played.rewards
    assert [result.observation["text"] for result in results] == [*texts, ""]
    assert [result.done for result in results] == [False, False, True]
    assert [result.observation["searches_left"] for result in results] == [4, 3, 0]


def test_what_is_not_of_the_split_and_what_comes_before_a_question_is_refused(config: EnvironmentConfig) -> None:
    other = next(iter(config.tasks("validation")))
    assert SearchServer(config, "validation").reset(question_id=other).text
    played = SearchServer(config, "train")
    with pytest.raises(ConfigError, match="no question yet"):
        played.step(SearchAction(answer="Pesaro"))
    with pytest.raises(ConfigError, match="train has no question"):
        played.reset(question_id=other)


def test_connections_play_apart_and_a_seed_draws_the_same_question(server: str) -> None:
    with GenericEnvClient(base_url=server).sync() as one, GenericEnvClient(base_url=server).sync() as other:
        drawn = [client.reset(seed=7).observation["text"] for client in (one, other)]
        assert drawn[0] == drawn[1]
        one.step({"query": GOLD_QUERIES[0]})
        assert other.step({"query": GOLD_QUERIES[1]}).observation["searches_left"] == 4

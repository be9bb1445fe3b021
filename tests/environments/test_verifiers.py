"""The exported taskset, installed and played by `vf-eval` against a server on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment, TaggedEnvironment
from tests.conftest import run_cli
from tests.environments.conftest import GOLD_QUERIES, QUESTION
from tests.llm_server import LlmServer, completion

if importlib.util.find_spec("verifiers") is None:
    pytest.skip("needs verifiers: make test-environments installs it", allow_module_level=True)

FIRST, SECOND = GOLD_QUERIES
FLAGS = ["--no-rich", "--no-push", "-n", "1", "--env.agent.runtime.type", "subprocess"]


def calls(asked: dict[str, Any]) -> dict[str, Any]:
    """A model that searches twice, and answers."""
    searches = sum(message["role"] == "tool" for message in asked["messages"])
    if searches == 2:
        return completion("So it is.\n<answer> Pesaro </answer>")
    function = {"name": "search", "arguments": json.dumps({"query": GOLD_QUERIES[searches]})}
    call = {"id": f"call-{searches}", "type": "function", "function": function}
    return completion("I look.", "tool_calls", tool_calls=[call])


def reads(asked: dict[str, Any]) -> dict[str, Any]:
    """A model that searches and opens in one turn, of which one call is run, then opens, and answers."""
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["search", "open"]
    turn = sum(message["role"] == "assistant" for message in asked["messages"])
    search = ("search", {"query": FIRST})
    turns = [[search, ("open", {"id": "d1"})], [("open", {"id": "d1"})], [("open", {"id": "d9"})], [search]]
    if turn == len(turns):
        return completion("<answer> Pesaro </answer>")
    written = [
        {"id": f"{turn}-{at}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for at, (name, arguments) in enumerate(turns[turn])
    ]
    return completion("I look.", "tool_calls", tool_calls=written)


def tags(asked: dict[str, Any]) -> dict[str, Any]:
    """The same in tags, without those that it stopped at."""
    searches = sum(message["role"] == "assistant" for message in asked["messages"])
    ends = [*(f"<search> {query} " for query in GOLD_QUERIES), "<answer> Pesaro "]
    return completion(f"<think> t </think>\n{ends[searches]}")


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory, config: EnvironmentConfig) -> Any:
    """Export the sample's one question that the script knows, as a package, and install it into a folder."""

    def made(template: str) -> Path:
        folder = tmp_path_factory.mktemp(template)
        command = ("export", "--format", "verifiers", "--template", template, "--store", config.store)
        written = run_cli(*command, "--output", folder / "package", "--quiet")
        assert written.returncode == 0, written.stderr
        rows = (folder / "package" / "train.jsonl").read_text().splitlines(keepends=True)
        (folder / "package" / "train.jsonl").write_text("".join(row for row in rows if QUESTION in row))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "installed")]
        subprocess.run([*pip, str(folder / "package")], check=True)
        return folder / "installed"

    return made


def play(package: Path, model: Any, folder: Path, harness: dict[str, Any], *more: str) -> dict[str, Any]:
    """Have `vf-eval` play the package's question; return the episode."""
    with LlmServer(model) as server:
        named = {"id": "stepsearch-questions", **harness}.items()
        settings = [part for name, value in named for part in (f"--env.agent.harness.{name}", str(value))]
        client = ["--model", "mock", "--client.base-url", server.url, "--client.api-key-var", "NO_KEY"]
        command = [str(Path(sys.executable).with_name("vf-eval")), "stepsearch-questions", *client, *FLAGS, *settings]
        found = subprocess.run(
            [*command, *more],
            cwd=folder,
            env={**os.environ, "NO_KEY": "x", "PYTHONPATH": os.pathsep.join([str(package), str(Path.cwd())])},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert list(folder.rglob("traces.jsonl")), found.stdout + found.stderr
    (traces,) = folder.rglob("traces.jsonl")
    (line,) = traces.read_text().splitlines()
    episode: dict[str, Any] = json.loads(line)
    return episode


def expected(template: str, config: EnvironmentConfig, tagged_config: EnvironmentConfig, *, ends: bool) -> list[float]:
    """What the turns of two searches, and perhaps of an answer, earn."""
    if template == "tools":
        calling = SearchEnvironment(config)
        calling.reset(QUESTION)
        for query in GOLD_QUERIES:
            calling.search(query)
        calling.answer("Pesaro" if ends else None)
        return calling.rewards if ends else [calling.rewards[0], sum(calling.rewards[1:])]
    tagging = TaggedEnvironment(tagged_config)
    tagging.reset(QUESTION)
    for end in (*(f"<search> {query} </search>" for query in GOLD_QUERIES), "<answer> Pesaro </answer>")[: 2 + ends]:
        tagging.step(f"<think> t </think>\n{end}")
    return tagging.rewards if ends else [tagging.rewards[0], tagging.rewards[1] + tagging.scores.score]


@pytest.mark.parametrize("ends", [True, False], ids=["answered", "stopped"])
@pytest.mark.parametrize(("template", "model"), [("tools", calls), ("musique", tags)])
def test_vf_eval_plays_the_package_and_keeps_what_each_turn_earned(
    template: str,
    model: Any,
    ends: bool,
    install: Any,
    config: EnvironmentConfig,
    tagged_config: EnvironmentConfig,
    tmp_path: Path,
) -> None:
    """Also where verifiers stops the rollout."""
    harness = {"store": config.store, "template": template, "max_length": 100_000, "max_obs_length": 10_000}
    episode = play(install(template), model, tmp_path, harness, *([] if ends else ["--env.agent.max-turns", "2"]))
    assert episode["ok"], episode["errors"]
    (trace,) = episode["traces"]
    wanted = expected(template, config, tagged_config, ends=ends)
    assert trace["info"]["turn_rewards"] == pytest.approx(wanted, abs=1e-12)
    earned = sum(reward["score"] * reward["weight"] for reward in trace["rewards"].values())
    assert earned == pytest.approx(sum(wanted), abs=1e-12)
    assert trace["metrics"]["answer_em"] == ends


def test_documents_are_opened_where_the_harness_is_told_so(
    install: Any, config: EnvironmentConfig, tmp_path: Path
) -> None:
    episode = play(install("tools"), reads, tmp_path, {"store": config.store, "tools": "open"})
    assert episode["ok"], episode["errors"]
    (trace,) = episode["traces"]
    environment = SearchEnvironment(config)
    environment.reset(QUESTION)
    first, second = environment.search(FIRST), environment.search(FIRST)
    environment.answer("Pesaro")
    wanted = [first.reward, 0, 0, second.reward, environment.rewards[-1]]
    assert trace["info"]["turn_rewards"] == pytest.approx(wanted, abs=1e-12)
    assert trace["info"]["reads"] == {"opens": 2}
    assert (trace["metrics"]["opens"], trace["metrics"]["searches"]) == (2, 2)


def test_an_engine_that_is_down_is_an_error_and_no_reward(
    install: Any, config: EnvironmentConfig, tmp_path: Path
) -> None:
    harness = {"store": config.store, "engine": "http=http://127.0.0.1:9"}
    fast = json.dumps(["engines.http.max_attempts=1", "engines.http.patience=0.1"])
    settings = ["--env.agent.harness.settings", fast]
    episode = play(install("tools"), calls, tmp_path, harness, *settings)
    assert not episode["ok"]
    (trace,) = episode["traces"]
    assert not trace["rewards"]
    assert "does not answer" in json.dumps(episode)

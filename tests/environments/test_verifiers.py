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


@pytest.mark.parametrize(("template", "model"), [("tools", calls), ("musique", tags)])
def test_vf_eval_plays_the_package_and_keeps_what_each_turn_earned(
    template: str, model: Any, install: Any, config: EnvironmentConfig, tagged_config: EnvironmentConfig, tmp_path: Path
) -> None:
    with LlmServer(model) as server:
        harness = {"id": "stepsearch-questions", "store": config.store, "template": template}
        settings = [part for name, value in harness.items() for part in (f"--env.agent.harness.{name}", value)]
        client = ["--model", "mock", "--client.base-url", server.url, "--client.api-key-var", "NO_KEY"]
        command = [str(Path(sys.executable).with_name("vf-eval")), "stepsearch-questions", *client, *FLAGS, *settings]
        found = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "NO_KEY": "x", "PYTHONPATH": os.pathsep.join([str(install(template)), str(Path.cwd())])},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert found.returncode == 0, found.stdout + found.stderr
    (traces,) = tmp_path.rglob("traces.jsonl")
    (line,) = traces.read_text().splitlines()
    episode = json.loads(line)
    assert episode["ok"], episode["errors"]
    (trace,) = episode["traces"]

    played: SearchEnvironment | TaggedEnvironment
    if template == "tools":
        played = SearchEnvironment(config)
        played.reset(QUESTION)
        for query in GOLD_QUERIES:
            played.search(query)
        played.answer("Pesaro")
    else:
        played = TaggedEnvironment(tagged_config)
        played.reset(QUESTION)
        for end in (*(f"<search> {query} </search>" for query in GOLD_QUERIES), "<answer> Pesaro </answer>"):
            played.step(f"<think> t </think>\n{end}")
    assert trace["info"]["turn_rewards"] == pytest.approx(played.rewards, abs=1e-12)
    earned = sum(reward["score"] * reward["weight"] for reward in trace["rewards"].values())
    assert earned == pytest.approx(sum(played.rewards), abs=1e-12)
    assert trace["metrics"]["answer_em"] == 1

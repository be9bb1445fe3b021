"""Policies on loopback: an OpenAI-compatible server that answers as a store's gold trajectories do."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.data import load_examples
from tests.conftest import Run
from tests.llm_server import LlmServer, completion

ENVIRONMENT = {**os.environ, "OPENAI_API_KEY": "sk-made-up"}
Row = dict[str, Any]
STOPS = ("</search>", "</answer>")


def world(cli: Run, folder: Path, questions: int) -> Path:
    """A store of a made-up world, all of it for training."""
    assert cli("synth", "-o", folder / "world.jsonl", "-n", questions, "-q").returncode == 0
    source = f"musique={folder / 'world.jsonl'}"
    built = cli("build", "--store", folder / "store", "--source", source, "--set", "quality.validation=0", "--quiet")
    assert built.returncode == 0, built.stderr
    return folder / "store"


def rows(output: Path) -> list[Row]:
    """The rollouts of a folder that are whole."""
    lines = (output / "rollouts.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def asked(requests: list[Row]) -> Counter[str]:
    """How often each request came."""
    return Counter(json.dumps(request, sort_keys=True) for request in requests)


class GoldPolicy:
    """Writes the turns of the trajectory whose question it is asked; as servers do, it leaves out where it stops."""

    def __init__(self, store: Path, split: str = "train") -> None:
        self._template = load_template("musique")
        found = load_examples(Store.open(store), split)
        self._examples = {self._template.opening(each.question).strip(): each for each in found}

    def __call__(self, request: dict[str, Any]) -> str:
        """The next turn, of a chat or of one text."""
        if "messages" in request:
            messages = request["messages"]
            return self._turn(messages[0]["content"], sum(message["role"] == "assistant" for message in messages))
        text = request["prompt"]
        prompt = next(prompt for prompt in self._examples if text.startswith(prompt))
        return self._turn(prompt, text.count("</information>") - prompt.count("</information>"))

    def server(self) -> LlmServer:
        """A server that offers this policy."""
        return LlmServer(self)

    def _turn(self, prompt: str, at: int) -> str:
        example = self._examples[prompt]
        turn = self._template.turn(example, at) if at < len(example.steps) else self._template.last(example)
        text = turn.text
        for stop in STOPS:
            text = text.removesuffix(stop)
        return text


class ScriptedPolicy(GoldPolicy):
    """Answers right in so many of `samples` rollouts of a question, which its id decides: from none to all."""

    def __init__(self, store: Path, samples: int, split: str = "train") -> None:
        super().__init__(store, split)
        self._samples = samples

    def passes(self) -> dict[str, int]:
        """How many of the rollouts are right, by question id."""
        return {each.question_id: self._right(each) for each in self._examples.values()}

    def __call__(self, request: dict[str, Any]) -> str:
        """The next turn of the rollout that the seed numbers, of a chat."""
        text = super().__call__(request)
        example = self._examples[request["messages"][0]["content"]]
        is_right = (request.get("seed") or 0) < self._right(example)
        return text if is_right else re.sub("<answer>.*", "<answer> nobody knows", text)

    def _right(self, example: Example) -> int:
        return zlib.crc32(example.question_id.encode()) % (self._samples + 1)


class GoldCaller:
    """Calls tools for the trajectory whose question it is asked; after its first search it opens a document.

    Every other turn writes a second call, which is not run.
    """

    def __init__(self, store: Path, split: str = "train") -> None:
        self._template = load_template("tools")
        self._examples = {each.question: each for each in load_examples(Store.open(store), split)}

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """The next message."""
        _, user, *written = request["messages"]
        example = self._examples[user["content"]]
        said = [message for message in written if message["role"] == "assistant"]
        searches = [("search", {"query": step.search.query}) for step in example.steps]
        may_open = len(request["tools"]) > 1
        turns = [searches[0], *([("open", {"id": "d1"}), ("find", {"id": "d1", "words": "the"})] if may_open else [])]
        turns += searches[1:]
        if len(said) == len(turns):
            return completion(self._template.last(example).text)
        calls = [turns[len(said)], *([("search", {"query": "x"})] if may_open and len(said) % 2 else [])]
        return completion("I look.", "tool_calls", tool_calls=[_call(*each) for each in calls])


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call-{zlib.crc32(function['arguments'].encode())}", "type": "function", "function": function}

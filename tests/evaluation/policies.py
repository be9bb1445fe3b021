"""Policies on loopback: an OpenAI-compatible server that answers as a store's gold trajectories do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.data import load_examples
from tests.llm_server import LlmServer

STOPS = ("</search>", "</answer>")


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

"""A server of `/v1/embeddings` whose vectors count words, and that misbehaves on command.

    with EmbeddingsServer() as server: ... server.url ... server.texts

`faults` are what it says instead, request by request, until there are none left; `answer` decides by the request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

from stepsearch_data.core.text import tokens
from tests.fake import Asked, Fault
from tests.llm_server import OpenAiServer, error

MODEL = "words"
DIMENSIONS = 256


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """How often the words of each bucket occur. The prefixes of E5 count in none."""
    counts = [0.0] * dimensions
    for word in tokens(text.removeprefix("query: ").removeprefix("passage: ")):
        counts[crc32(word.encode()) % dimensions] += 1.0
    return counts


def reply(vectors: list[list[float]]) -> dict[str, Any]:
    """The body of a usual reply, its rows in no particular order."""
    rows = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(vectors)]
    return {"object": "list", "model": MODEL, "data": rows[::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}}


class EmbeddingsServer(OpenAiServer):
    """Says `faults`, request by request, until there are none left; then what `answer` says, or vectors."""

    kept = ("embeddings",)

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(self._embed, delay)
        self.dimensions = DIMENSIONS
        self.faults: list[Fault | dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], Fault | dict[str, Any] | None] = lambda _: None

    @property
    def texts(self) -> list[str]:
        """Every text that was asked for, as often as it was."""
        return [text for request in self.requests for text in request["input"]]

    def _embed(self, asked: Asked) -> Fault | dict[str, Any]:
        if asked.body["model"] != MODEL:
            return error(404, f"The model `{asked.body['model']}` does not exist.")
        said = self.faults.pop(0) if self.faults else self.answer(asked.body)
        return said or reply([vector(text, self.dimensions) for text in asked.body["input"]])

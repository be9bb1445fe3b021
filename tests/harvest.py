"""A store of questions from documents, with something lost at most steps: a model writes, and reads what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

from tests.composer import is_about_a_chain, write, write_documents
from tests.conftest import run_cli
from tests.llm_server import LlmServer
from tests.reader import Reader

PRICE = "llm.prices={mock = [1.0, 4.0]}"
REFUSAL = "I would rather not."
WRITES = ("nothing", "its answer", "its answer", "known", "known", "guessed", "guessed", "unread", "good", "good")
"""What becomes of questions."""


class Model:
    """Writes questions, some with their answers in them. Some of them it knows by heart, guesses, or will not read.

    What it does depends on the passages alone, so that it is the same in every build.
    """

    def __init__(self) -> None:
        self._answers: dict[str, dict[str, str]] = {kind: {} for kind in WRITES}
        self._reader = Reader(self._answers["known"])
        self._guesser = Reader(answers=self._answers["guessed"], guess=1.0)

    def __call__(self, request: dict[str, Any]) -> str:
        """The reply."""
        shown = next(str(message["content"]) for message in request["messages"] if message["role"] == "user")
        return self._written(request, shown) if is_about_a_chain(request) else self._read(request, shown)

    def _written(self, request: dict[str, Any], shown: str) -> str:
        kind = WRITES[crc32(shown.encode()) % len(WRITES)]
        reply = json.loads(write(request))
        if kind == "its answer":
            reply["question"] = reply["question"].replace("?", f", {reply['answer']}?")
        self._answers[kind][reply["question"]] = reply["answer"]
        return REFUSAL if kind == "nothing" else json.dumps(reply)

    def _read(self, request: dict[str, Any], shown: str) -> str:
        question = shown.partition("\n")[0].removeprefix("Question: ").strip()
        if question in self._answers["unread"]:
            return REFUSAL
        guesses = question in self._answers["guessed"] and "Passages:" in shown
        return (self._guesser if guesses else self._reader)(request)


def build(folder: Path, *arguments: str) -> Path:
    """Build a store from documents of a made-up world; what a model costs is on record."""
    write_documents(folder / "documents.jsonl", 30)
    given = ("--source", f"corpus={folder / 'documents.jsonl'}", "--store", folder / "store", "--quiet")
    settings = ("compose.llm=mock", "verify.llm=mock", "run.max_reject_share=1", PRICE)
    with LlmServer(Model()) as server:
        env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-made-up", "XDG_CACHE_HOME": str(folder / "cache")}
        built = run_cli("build", *given, *(f"--set={each}" for each in settings), *arguments, env=env)
    assert built.returncode in {0, 3}, built.stderr
    return folder / "store"

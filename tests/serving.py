"""A corpus, and `stepsearch-data serve` (or `view`) as a process of its own on a free port."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx2

from stepsearch_data.search import LocalEngine, Service
from stepsearch_data.search.index import open_engine
from stepsearch_data.search.kinds import choose
from stepsearch_data.sources.passages import join_contents

_CHANCE = random.Random(4)
_WORDS = [f"word{number}" for number in range(300)]
PASSAGES = [
    {"id": f"p{n}", "title": f"Title {_CHANCE.choice(_WORDS)}", "text": " ".join(_CHANCE.choices(_WORDS, k=30))}
    for n in range(400)
]
QUERIES = [" ".join(_CHANCE.choices(_WORDS, k=_CHANCE.randint(1, 5))) for _ in range(200)]


def write_corpus(path: Path, passages: list[dict[str, str]] = PASSAGES) -> Path:
    path.write_text("".join(json.dumps(passage) + "\n" for passage in passages))
    return path


def engine_of(index: Path, kind: str = "bm25") -> LocalEngine:
    """The engine of an index folder, in this process."""
    (engine,) = choose([kind], {})
    found = open_engine(engine, index, Service())
    assert isinstance(found, LocalEngine)
    return found


def expected(engine: LocalEngine, queries: list[str], k: int, *, scores: bool = True) -> list[list[Any]]:
    """What `/retrieve` is to answer, from the engine itself."""
    found = engine.index.find(queries, k)
    return [[_shown(engine, *pair, scores=scores) for pair in each] for each in found]


def _shown(engine: LocalEngine, number: int, score: float, *, scores: bool) -> dict[str, Any]:
    identity, title, text = engine.documents[number]
    document = {"id": identity, "contents": join_contents(title, text)}
    return {"document": document, "score": score} if scores else document


class Server:
    """Runs until the block ends; `url` is where it says that it is, `said` what it has printed until it was ready.

    `files` is how many it may open.
    """

    def __init__(self, *arguments: str | Path, verb: str = "serve", files: int | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STEPSEARCH_")}
        limited = f'ulimit -n {files}; exec "$0" "$@"' if files else 'exec "$0" "$@"'
        command = ["sh", "-c", limited, sys.executable, "-W", "error", "-m", "stepsearch_data", verb, "--port", "0"]
        self.process = subprocess.Popen([*command, *map(str, arguments)], stderr=subprocess.PIPE, text=True, env=clean)
        self.said = self.url = ""

    def __enter__(self) -> Self:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said += line
            found = re.search(r"http://\S+:\d+(?=/retrieve -d|/ \(stop)", line)
            if found:
                self.url = found[0]
                self._client = httpx2.Client(base_url=self.url, timeout=30)
                return self
        raise AssertionError(f"the server ended with {self.process.wait()}: {self.said}")

    def __exit__(self, *_: object) -> None:
        self._client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code, and what it said at the end."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def ask(self, **question: Any) -> Any:
        """What `/retrieve` answers."""
        return self.send("/retrieve", json.dumps(question).encode()).raise_for_status().json()["result"]

    def send(self, path: str, body: bytes | None = None, method: str = "") -> httpx2.Response:
        """One exchange, whatever its status."""
        return self._client.request(method or ("GET" if body is None else "POST"), path, content=body)

"""Builds that ask a model, through the command line: a server, a store, and a replay cache of their own."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stepsearch_data.llm.money import tokens_in
from stepsearch_data.pipeline.store import Store
from stepsearch_data.remote.cache import WINDOW_SECONDS
from stepsearch_data.sql import query as sql
from tests.conftest import run_cli
from tests.llm_server import Answer, LlmServer, completion
from tests.tree import tree

DELAY = 0.05  # seconds of a call in a build that is killed
PRICE = ("--set", "llm.prices={mock = [1.0, 4.0]}")


class ModelBuilds:
    """Builds with the same arguments, in a folder for stores and for the replay cache."""

    def __init__(self, folder: Path, server: LlmServer, *given: str) -> None:
        self.folder, self.server, self.given = folder, server, given
        self.env = {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "sk-made-up",
        }

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def command(self, *arguments: str | Path, store: Path | None = None) -> list[str]:
        return [*map(str, ("build", "--store", store or self.store, *self.given, *arguments))]

    def build(self, *arguments: str | Path, store: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return run_cli(*self.command(*arguments, store=store), env={**self.env, **env})

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Another command."""
        return run_cli(*map(str, arguments), env=self.env)

    def sent_by_builds(self) -> int:
        """Build here and in another folder, which sends nothing more and has the same bytes; return what was sent."""
        assert self.build().returncode == 0
        sent = len(self.server.requests)
        assert sent == self.rows("SELECT count(*) AS n FROM llm_calls")[0]["n"]
        again = self.folder / "again"
        assert self.build(store=again).returncode == 0
        assert tree(again / "stages") == tree(self.store / "stages")
        return sent

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A build that goes on in the background."""
        command = [sys.executable, "-m", "stepsearch_data", *self.command(*arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env={**os.environ, **self.env}, stdout=pipe, stderr=pipe, text=True)

    def kill_after(self, requests: int, *arguments: str) -> None:
        """Begin a build, and kill it once the server has got so many requests."""
        self.server.delay = DELAY
        with self.start(*arguments) as process:
            deadline = time.monotonic() + 60
            while len(self.server.requests) < requests:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        self.server.delay = 0.0

    def lost_at_most(self, in_flight: int) -> int:
        """How many replies such a kill may lose: of the cache's last window, one before it, and one on its way."""
        return in_flight * (math.ceil(WINDOW_SECONDS / DELAY) + 2)

    def rows(self, query: str, store: Path | None = None) -> list[dict[str, Any]]:
        with sql(Store.open(store or self.store), query) as reader:
            return reader.read_all().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types

    def tables(self) -> set[str]:
        """The tables that were committed."""
        return {name for entry in Store(self.store).manifest().stages.values() for name in entry.outputs}

    def sent_again(self) -> int:
        """How many requests the server got more than once."""
        return len(self.server.requests) - len({json.dumps(request) for request in self.server.requests})


def counted(reads: Answer) -> Answer:
    """Answer with the usage that the texts have, instead of a fixed one."""

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        said = reads(request)
        assert isinstance(said, str)
        reply = completion(said)
        prompt = tokens_in(*(str(message["content"]) for message in request["messages"]))
        reply["usage"] = {"prompt_tokens": prompt, "completion_tokens": tokens_in(said), "total_tokens": 0}
        return reply

    return answer

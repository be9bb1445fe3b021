"""Engines that ask a server on loopback, opened as a build opens them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from stepsearch_data.remote.cache import Cache
from stepsearch_data.search import Answer, SearchEngine, Service
from stepsearch_data.search.index import open_engine
from stepsearch_data.search.kinds import choose

T = TypeVar("T")
QUICK = {"timeout": 5, "max_attempts": 2, "patience": 30, "rps": 1000}


@cache
def _empty_cache() -> bytes:
    """The file of a replay cache. Making one waits for the disk, which hundreds of tests need not do."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "replay.sqlite"
        Cache(path).close()
        return path.read_bytes()


class World:
    """A replay cache in a folder, and the records of all requests, as a store keeps them over many builds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[dict[str, Any]] = []
        (folder / "replay.sqlite").write_bytes(_empty_cache())

    @property
    def sent(self) -> int:
        """Requests that were sent."""
        return sum(record["attempts"] for record in self.records)

    def open(
        self, kind: str, url: str, *, replay: str = "replay.sqlite", name: str = "", **section: Any
    ) -> SearchEngine:
        """An engine of a new build."""
        name = name or kind
        engine = choose([name], {name: {"kind": kind, "url": url, **QUICK, **section}})[0]
        used = Counter(record["engine"] for record in self.records if not record["cached"])
        return open_engine(engine, None, Service(1, self.folder / replay, self.records.append, used))

    def ask(self, kind: str, url: str, *queries: str, k: int = 3, **section: Any) -> list[Answer]:
        """What an engine answers to queries that come together, in calls as large as it wants them."""

        async def go(engine: SearchEngine) -> list[Answer]:
            calls = [queries[at : at + engine.batch] for at in range(0, len(queries), engine.batch)]
            answers = await asyncio.gather(*(engine.search(call, k) for call in calls))
            return [answer for part in answers for answer in part]

        return self.run(kind, url, go, **section)

    def run(self, kind: str, url: str, work: Callable[[SearchEngine], Awaitable[T]], **section: Any) -> T:
        """What some work with an engine returns."""

        async def go() -> T:
            engine = self.open(kind, url, **section)
            try:
                return await work(engine)
            finally:
                await engine.close()

        return asyncio.run(go())

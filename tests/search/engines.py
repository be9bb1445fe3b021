"""Engines that ask a server, opened as a build opens them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest

from stepsearch_data.remote.cache import Cache
from stepsearch_data.search import Answer, SearchEngine, Service, remote
from stepsearch_data.search.index import open_engine
from stepsearch_data.search.kinds import choose
from stepsearch_data.search.remote import RemoteEngine
from tests.fake import FakeServer, reach

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

    def open(
        self, kind: str, server: FakeServer | str, *, replay: bool = True, name: str = "", **section: Any
    ) -> SearchEngine:
        """An engine of a new build."""
        name = name or kind
        url, transport = reach(server)
        engine = choose([name], {name: {"kind": kind, "url": url, **QUICK, **section}})[0]
        used = Counter(record["engine"] for record in self.records if not record["cached"])
        service = Service(1, self.folder / "replay.sqlite" if replay else None, self.records.append, used)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote, "RemoteEngine", partial(RemoteEngine, transport=transport))
            return open_engine(engine, None, service)

    def ask(self, kind: str, server: FakeServer | str, *queries: str, k: int = 3, **section: Any) -> list[Answer]:
        """What an engine answers to queries that come together, in calls as large as it wants them."""

        async def go(engine: SearchEngine) -> list[Answer]:
            calls = [queries[at : at + engine.batch] for at in range(0, len(queries), engine.batch)]
            answers = await asyncio.gather(*(engine.search(call, k) for call in calls))
            return [answer for part in answers for answer in part]

        return self.run(kind, server, go, **section)

    def run(
        self, kind: str, server: FakeServer | str, work: Callable[[SearchEngine], Awaitable[T]], **section: Any
    ) -> T:
        """What some work with an engine returns."""

        async def go() -> T:
            engine = self.open(kind, server, **section)
            try:
                return await work(engine)
            finally:
                await engine.close()

        return asyncio.run(go())

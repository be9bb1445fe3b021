"""Engines of this process for tests: built over a few documents in a folder, and asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepsearch_data.core.progress import Meter
from stepsearch_data.search import Answer, Engine, Found, LocalEngine, Service
from stepsearch_data.search.documents import Document, Documents, write_documents
from stepsearch_data.search.kinds import choose

PART = "part"


class Counter(Meter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(None, "test")
        self.steps: list[int] = []

    def advance(self, rows: int = 1) -> None:
        """See `Meter.advance`."""
        self.steps.append(rows)


def chosen(kind: str, **section: Any) -> Engine:
    """An engine with its settings, as a run chooses it."""
    return choose([kind], {kind: section})[0]


def write(folder: Path, corpus: Sequence[Document]) -> Documents:
    """The documents of an index that has none of its parts yet."""
    (folder / PART).mkdir(parents=True)
    write_documents(corpus, folder)
    return Documents(folder)


def build(engine: Engine, folder: Path, meter: Meter | None = None) -> None:
    """Build an engine's part of the index."""
    assert engine.kind.build is not None
    engine.kind.build(engine, Documents(folder), folder / PART, meter or Counter())


def opened(engine: Engine, folder: Path, service: Service | None = None) -> LocalEngine:
    """The engine, over the index that was built."""
    found = engine.kind.open(engine, folder / PART, Documents(folder), service or Service())
    assert isinstance(found, LocalEngine)
    return found


def built(kind: str, folder: Path, corpus: Sequence[Document], **section: Any) -> LocalEngine:
    """An engine over a new index of these documents."""
    engine = chosen(kind, **section)
    write(folder, corpus)
    build(engine, folder)
    return opened(engine, folder)


def answers(engine: LocalEngine, queries: Sequence[str], k: int = 10) -> list[Answer]:
    """What it answers; it is closed after that."""

    async def go() -> list[Answer]:
        try:
            return await engine.search(queries, k)
        finally:
            await engine.close()

    return asyncio.run(go())


def ask(engine: LocalEngine, queries: Sequence[str], k: int = 10) -> list[list[Found]]:
    """What it finds."""
    return [list(answer.found) for answer in answers(engine, queries, k)]


def ids(engine: LocalEngine, query: str, k: int = 10) -> list[str | None]:
    """The ids of what it finds."""
    return [found.passage_id for found in ask(engine, [query], k)[0]]

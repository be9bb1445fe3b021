"""What episodes search: a local index, or an engine elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Any, TypeVar

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.indexes import Choice, Load, opened
from stepsearch_data.pipeline.config import RunConfig
from stepsearch_data.search import Answer, Service
from stepsearch_data.search.engine import LocalEngine, SearchEngine
from stepsearch_data.search.index import open_engine
from stepsearch_data.search.kinds import Engine
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.rollout import Retrieve

T = TypeVar("T")
Find = Callable[[Sequence[str], int], Sequence[list[Paragraph] | SearchError]]
"""Finds at most so many documents for each query, or tells why there is no answer."""


@contextmanager
def open_retriever(
    choice: Choice, config: RunConfig, load: Load, reporter: Reporter
) -> Iterator[tuple[dict[str, Any], Retrieve]]:
    """Open the engine that is searched; yield what decides its answers, and how it is asked.

    It raises SearchError where a query gets no answer: an episode must not learn from a retriever that is down.
    Raises SearchError, StoreError.
    """
    with open_finder(choice, config, load, reporter) as (settings, find):
        yield settings, partial(_retrieve, find)


def _retrieve(find: Find, queries: Sequence[str], k: int) -> list[list[Paragraph]]:
    found: list[list[Paragraph]] = []
    for answer in find(queries, k):
        if isinstance(answer, SearchError):
            raise answer
        found.append(answer)
    return found


@contextmanager
def open_finder(
    choice: Choice, config: RunConfig, load: Load, reporter: Reporter
) -> Iterator[tuple[dict[str, Any], Find]]:
    """Do as `open_retriever`, but for whom one query's failure is not that of the others."""
    engines = config.engines
    if len(engines) > 1:
        names = ", ".join(engine.name for engine in engines)
        raise ConfigError(f"a policy searches with one engine, and {names} are named", "choose one: --engine NAME")
    with ExitStack() as stack:
        root, corpus = None, ""
        if choice.corpus or choice.index or (engines[0].is_local and not engines[0].index):
            index = stack.enter_context(opened(choice, load, reporter))
            root, corpus, engines = index.root, index.metadata.digest, index.engines
        find = stack.enter_context(_finder(engines[0], root, Service(config.run.workers, config.llm.replay)))
        settings = {
            "name": engines[0].name,
            **engines[0].fingerprint(),
            "index": str(engines[0].index or ""),
            "corpus": corpus,
        }
        yield settings, find


@contextmanager
def _finder(chosen: Engine, root: Path | None, service: Service) -> Iterator[Find]:
    """Search with an engine until the block ends, from any thread.

    The engine lives in a thread of its own, as its connections do.
    """

    async def opened_engine() -> SearchEngine:
        return open_engine(chosen, root, service)

    loop, asking = asyncio.new_event_loop(), Lock()
    thread = Thread(target=loop.run_forever, name="search", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        with asking:
            if loop.is_closed():
                work.close()
                raise SearchError(f"{chosen.name} is closed")
            answer = asyncio.run_coroutine_threadsafe(work, loop)
        return answer.result()

    engine: SearchEngine | None = None
    try:
        engine = run(opened_engine())
        yield _local(engine) if isinstance(engine, LocalEngine) else _remote(engine, run)
    finally:
        with asking:  # or rollouts in another thread would wait forever
            try:
                asyncio.run_coroutine_threadsafe(_close(engine), loop).result()
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                loop.close()


async def _close(engine: SearchEngine | None) -> None:
    """Cancel all tasks but this one, wait until they have ended, and close the engine."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    if engine:
        await engine.close()


def _local(engine: LocalEngine) -> Find:
    one = Lock()

    def find(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        with one:
            found = engine.index.find(queries, k)
            documents = [[engine.documents[number] for number, _ in hits] for hits in found]
        return [[Paragraph(document.title, document.text) for document in each] for each in documents]

    return find


def _remote(engine: SearchEngine, run: Callable[[Coroutine[Any, Any, list[Answer]]], list[Answer]]) -> Find:
    def find(queries: Sequence[str], k: int) -> list[list[Paragraph] | SearchError]:
        """Search for all queries at once."""
        return [_read(engine.name, answer) for answer in run(engine.search(queries, k))]

    return find


def _read(name: str, answer: Answer) -> list[Paragraph] | SearchError:
    if answer.error:
        return SearchError(f"{name} does not answer: {answer.error}", "start it again; the same command goes on")
    return [Paragraph(found.title, found.text) for found in answer.found]

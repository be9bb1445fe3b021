"""Searches of all environments of a process: one index, one thread; what waits goes to the engine as one batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from stepsearch_data.builds import engine_settings, run_config_over
from stepsearch_data.core.errors import StepSearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.environments.config import EnvironmentConfig
from stepsearch_data.indexes import Choice
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.retrieval import open_retriever
from stepsearch_data.trainer.rollout import Retrieve

Found = Future[list[Paragraph]]


def find(config: EnvironmentConfig, query: str) -> Found:
    """Search. The result has at most `topk` documents, best first.

    It raises SearchError where the engine does not answer, StoreError and ConfigError where there is none.
    """
    found: Found = Future()
    # A forked process has no thread of its parent's.
    _inbox(config.store, config.engine, config.settings, config.topk, os.getpid()).put((query, found))
    return found


def retrieve(config: EnvironmentConfig, queries: Sequence[str]) -> list[list[Paragraph]]:
    """Search for some queries. Raises what `find` does."""
    waiting = [find(config, query) for query in queries]
    return [found.result() for found in waiting]


Inbox = SimpleQueue[tuple[str, Found]]


@cache
def _inbox(store: str, engine: str, settings: tuple[str, ...], k: int, _process: int) -> Inbox:
    inbox: Inbox = SimpleQueue()
    Thread(target=_work, args=(store, engine, settings, k, inbox), name="search", daemon=True).start()
    return inbox


def _work(store: str, engine: str, settings: tuple[str, ...], k: int, inbox: Inbox) -> None:
    """Open the engine and answer for as long as the process lives."""
    load = partial(run_config_over, None, [*engine_settings([engine] if engine else []), *settings])
    try:
        choice = Choice(store=Path(store))
        with open_retriever(choice, load(()), load, Reporter(quiet=True)) as (_, search):
            while True:
                _answer(inbox, search, k)
    except StepSearchError as error:  # it could not be opened
        while True:
            inbox.get()[1].set_exception(error)


def _answer(inbox: Inbox, search: Retrieve, k: int) -> None:
    asked = [inbox.get()]
    while True:
        try:
            asked.append(inbox.get_nowait())
        except Empty:
            break
    try:
        answers = search([query for query, _ in asked], k)
    except Exception as error:  # noqa: BLE001 - whatever an engine raises, whoever asked must not wait forever
        for _, found in asked:
            found.set_exception(error)
    else:
        for (_, found), documents in zip(asked, answers, strict=True):
            found.set_result(documents)

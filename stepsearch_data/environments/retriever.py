"""Searches of all environments of a process: one index, one thread; what waits goes to the engine as one batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from stepsearch_data.builds import engine_settings, run_config_over
from stepsearch_data.core.progress import Reporter
from stepsearch_data.environments.config import EnvironmentConfig
from stepsearch_data.indexes import Choice
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.retrieval import open_retriever
from stepsearch_data.trainer.rollout import Retrieve

Found = Future[list[Paragraph]]
Inbox = SimpleQueue[tuple[str, Found]]
Key = tuple[EnvironmentConfig, int]

_inboxes: dict[Key, Inbox] = {}
_opening = Lock()


def find(config: EnvironmentConfig, query: str) -> Found:
    """Search. The result has at most `topk` documents, best first.

    It raises SearchError where the engine does not answer, StoreError and ConfigError where there is none.
    """
    found: Found = Future()
    _inbox_of(config).put((query, found))
    return found


def retrieve(config: EnvironmentConfig, queries: Sequence[str]) -> list[list[Paragraph]]:
    """Search for some queries. Raises what `find` does."""
    waiting = [find(config, query) for query in queries]
    return [found.result() for found in waiting]


def _inbox_of(config: EnvironmentConfig) -> Inbox:
    """Return where queries for an engine wait. Configs that search alike share it; a forked process has its own."""
    searched = EnvironmentConfig(config.store, config.engine, topk=config.topk, settings=config.settings)
    key = searched, os.getpid()
    with _opening:
        if key not in _inboxes:
            _inboxes[key] = SimpleQueue()
            Thread(target=_work, args=(key, _inboxes[key]), name="search", daemon=True).start()
        return _inboxes[key]


def _work(key: Key, inbox: Inbox) -> None:
    """Open the engine, and answer for as long as the process lives."""
    config, _ = key
    load = partial(
        run_config_over, None, [*engine_settings([config.engine] if config.engine else []), *config.settings]
    )
    try:
        choice = Choice(store=Path(config.store))
        with open_retriever(choice, load(()), load, Reporter(quiet=True)) as (_, search):
            while True:
                _answer(inbox, search, config.topk)
    except Exception as error:  # noqa: BLE001 - it could not be opened: whoever asks must not wait forever
        with _opening:
            del _inboxes[key]  # so that a later search tries again
        while True:
            for _, found in _waiting(inbox):
                found.set_exception(error)


def _answer(inbox: Inbox, search: Retrieve, k: int) -> None:
    asked = _waiting(inbox)
    try:
        answers = search([query for query, _ in asked], k) if asked else []
    except Exception as error:  # noqa: BLE001 - whatever an engine raises
        for _, found in asked:
            found.set_exception(error)
    else:
        for (_, found), documents in zip(asked, answers, strict=True):
            found.set_result(documents)


def _waiting(inbox: Inbox) -> list[tuple[str, Found]]:
    """Wait for a query; return all that there are, without those that nobody waits for any more."""
    asked = [inbox.get()]
    with suppress(Empty):
        while True:
            asked.append(inbox.get_nowait())
    return [(query, found) for query, found in asked if found.set_running_or_notify_cancel()]

"""Searches of all environments of a process: one index, one thread; what waits goes to the engine as one batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import NamedTuple

from stepsearch_data.builds import engine_settings, run_config_over
from stepsearch_data.core.errors import SearchError, StepSearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.environments.config import EnvironmentConfig
from stepsearch_data.indexes import Choice
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.retrieval import Find, open_finder


class Asked(NamedTuple):
    """A query that waits for so many documents."""

    query: str
    k: int
    found: Future[list[Paragraph]]


_Inbox = SimpleQueue[Asked]

_inboxes: dict[EnvironmentConfig, _Inbox] = {}
_opening = Lock()


def find(config: EnvironmentConfig, query: str) -> Future[list[Paragraph]]:
    """Search. The result has at most `topk` documents, best first.

    It raises SearchError where the engine does not answer, StoreError and ConfigError where there is none.
    """
    asked = Asked(query, config.topk, Future())
    searched = EnvironmentConfig(config.store, config.engine, settings=config.settings)  # what decides the answers
    with _opening:
        if searched not in _inboxes:
            _inboxes[searched] = SimpleQueue()
            Thread(target=_work, args=(searched, _inboxes[searched]), name="search", daemon=True).start()
        _inboxes[searched].put(asked)
    return asked.found


def retrieve(config: EnvironmentConfig, queries: Sequence[str]) -> list[list[Paragraph]]:
    """Search for some queries. Raises what `find` does."""
    waiting = [find(config, query) for query in queries]
    return [found.result() for found in waiting]


def _forget() -> None:
    """Begin anew in a forked process, which has no threads."""
    global _opening  # noqa: PLW0603 - a thread that is not here may hold it
    _opening = Lock()
    _inboxes.clear()


os.register_at_fork(after_in_child=_forget)


def _work(config: EnvironmentConfig, inbox: _Inbox) -> None:
    """Open the engine, and answer for as long as the process lives."""
    load = partial(
        run_config_over, None, [*engine_settings([config.engine] if config.engine else []), *config.settings]
    )
    try:
        choice = Choice(store=Path(config.store))
        with open_finder(choice, load(()), load, Reporter(quiet=True)) as (_, search):
            while True:
                answer([inbox.get(), *_others(inbox)], search)
    except Exception as error:  # noqa: BLE001 - it could not be opened: whoever asks must not wait forever
        with _opening:
            del _inboxes[config]  # so that a later search tries again
        _fail(_wanted(_others(inbox)), error)


def answer(waiting: Iterable[Asked], search: Find) -> None:
    """Search for all that waits; whoever asked is told in any case."""
    wanted = _wanted(waiting)
    for k in {each.k for each in wanted}:
        asked = [each for each in wanted if each.k == k]
        try:
            answers = list(zip(asked, search([each.query for each in asked], k), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever an engine raises
            _fail(asked, error)
            continue
        for each, found in answers:
            if isinstance(found, SearchError):
                each.found.set_exception(found)
            else:
                each.found.set_result(found)


def _fail(asked: Sequence[Asked], error: Exception) -> None:
    """Tell all that the engine failed, in an error of ours: trainers go on where it is another."""
    failure = error
    if not isinstance(error, StepSearchError):
        failure = SearchError(f"the engine failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
    for each in asked:
        each.found.set_exception(failure)


def _others(inbox: _Inbox) -> Iterator[Asked]:
    """Yield all that waits now."""
    with suppress(Empty):
        while True:
            yield inbox.get_nowait()


def _wanted(waiting: Iterable[Asked]) -> list[Asked]:
    """Return those that somebody still waits for."""
    return [each for each in waiting if each.found.set_running_or_notify_cancel()]

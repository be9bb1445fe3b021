"""Searches of many environments: in batches, in forked processes, and when there is nothing to search."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import SearchError, StoreError
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment
from stepsearch_data.environments.retriever import Asked, answer, find, retrieve
from tests.environments.conftest import GOLD_QUERIES, QUESTION
from tests.fake import Fault
from tests.search_servers import KEY, KEYS, Page, SearchServer, error, pages

FAST = ("engines.http.max_attempts=1", "engines.http.patience=0.1")


def test_answers_do_not_depend_on_what_else_waits(config: EnvironmentConfig) -> None:
    queries = [*GOLD_QUERIES, "zzyzx", *GOLD_QUERIES] * 20
    together = retrieve(config, queries)
    assert together == [find(config, query).result() for query in queries]
    assert together[2] == []


def test_what_waits_is_asked_at_once(config: EnvironmentConfig) -> None:
    """Each environment gets the answer to its own query."""
    asking = threading.Event()

    def answer(query: str) -> Sequence[Page]:
        if query == "first":
            asking.wait(30)
        return pages(query)

    with SearchServer("http", answer) as server:
        elsewhere = replace(config, engine=f"http={server.url}", settings=FAST)
        first = find(elsewhere, "first")
        while not server.requests:
            threading.Event().wait(0.01)
        others = [find(replace(elsewhere, topk=k), f"query {n}") for n in range(20) for k in (1, 2)]
        asking.set()
        found = [each.result() for each in others]
        assert len(first.result()) == 3
    assert [[each.title for each in documents] for documents in found] == [
        [page.title for page in pages(f"query {n}")[:k]] for n in range(20) for k in (1, 2)
    ]
    assert len(server.requests) < len(others)


def searching() -> set[threading.Thread]:
    """The threads that search."""
    return {thread for thread in threading.enumerate() if thread.name == "search"}


def _search(config: EnvironmentConfig, answers: Any) -> None:
    answers.put([document.title for document in retrieve(config, ["Rossini"])[0]])


def test_a_forked_process_searches_by_itself(config: EnvironmentConfig) -> None:
    """It has no thread that answers."""
    expected = [document.title for document in retrieve(config, ["Rossini"])[0]]
    forking = multiprocessing.get_context("fork")
    answers = forking.Queue()
    process = forking.Process(target=_search, args=(config, answers))
    process.start()
    try:
        assert answers.get(timeout=60) == expected
    finally:
        process.kill()
        process.join()


def test_a_query_that_fails_is_not_the_failure_of_others(
    config: EnvironmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(query: str) -> Sequence[Page] | Fault:
        return error("brave", 500, "no") if query == "bad" else pages(query)

    monkeypatch.setenv(KEYS["brave"], KEY)
    with SearchServer("brave", answer) as server:
        settings = tuple(setting.replace("http", "brave") for setting in FAST)
        elsewhere = replace(config, engine=f"brave={server.url}", settings=settings)
        waiting = {query: find(elsewhere, query) for query in ("one", "bad", "two")}
        assert [len(waiting[query].result()) for query in ("one", "two")] == [3, 3]
        with pytest.raises(SearchError, match="does not answer"):
            waiting["bad"].result()


@pytest.mark.parametrize("found", [RuntimeError("odd"), [[]]], ids=["raises", "is short"])
def test_whatever_an_engine_does_is_an_error_of_ours(found: Any) -> None:
    """Trainers show other errors to the policy and go on."""

    def search(_: Sequence[str], __: int) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    asked = [Asked(query, 3, Future()) for query in "ab"]
    answer(asked, search)
    for each in asked:
        with pytest.raises(SearchError, match="the engine failed"):
            each.found.result(1)


def test_whoever_asks_is_told_that_there_is_no_store_until_there_is_one(
    config: EnvironmentConfig, tmp_path: Path
) -> None:
    before, later = searching(), replace(config, store=str(tmp_path / "store"))
    for _ in range(2):
        with pytest.raises(StoreError):
            retrieve(later, ["Rossini"])
    assert not searching() - before
    shutil.copytree(config.store, later.store)
    assert retrieve(later, ["Rossini"]) == retrieve(config, ["Rossini"])


def test_whoever_asks_is_told_that_the_engine_is_down(config: EnvironmentConfig) -> None:
    down = replace(config, engine="http=http://127.0.0.1:9", settings=FAST)
    for _ in range(2):
        with pytest.raises(SearchError, match="does not answer"):
            retrieve(down, ["Rossini"])


def test_a_search_that_nobody_waits_for_any_more_harms_no_other(config: EnvironmentConfig) -> None:
    """A rollout that takes too long is cancelled."""

    async def search() -> None:
        environment = SearchEnvironment(config)
        environment.reset(QUESTION)
        task = asyncio.create_task(environment.search_async("Rossini"))
        await asyncio.sleep(0)
        task.cancel()

    for _ in range(20):
        asyncio.run(search())
    assert retrieve(config, ["Rossini"])[0]

"""Searches of many environments: in batches, in forked processes, and when there is nothing to search."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stepsearch_data.core.errors import SearchError, StoreError
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment
from stepsearch_data.environments.retriever import find, retrieve
from tests.environments.conftest import GOLD_QUERIES, QUESTION


def test_answers_do_not_depend_on_what_else_waits(config: EnvironmentConfig) -> None:
    queries = [*GOLD_QUERIES, "zzyzx", *GOLD_QUERIES] * 20
    together = retrieve(config, queries)
    assert together == [find(config, query).result() for query in queries]
    assert together[2] == []


def test_whoever_asks_is_told_that_there_is_no_store_until_there_is_one(
    config: EnvironmentConfig, tmp_path: Path
) -> None:
    later = replace(config, store=str(tmp_path / "store"))
    for _ in range(2):
        with pytest.raises(StoreError):
            retrieve(later, ["Rossini"])
    shutil.copytree(config.store, later.store)
    assert retrieve(later, ["Rossini"]) == retrieve(config, ["Rossini"])


def test_whoever_asks_is_told_that_the_engine_is_down(config: EnvironmentConfig) -> None:
    settings = ("engines.http.max_attempts=1", "engines.http.patience=0.1")
    down = replace(config, engine="http=http://127.0.0.1:9", settings=settings)
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

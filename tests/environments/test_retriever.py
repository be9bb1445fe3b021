"""Searches of many environments: in batches, in forked processes, and when there is nothing to search."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepsearch_data.core.errors import SearchError, StoreError
from stepsearch_data.environments import EnvironmentConfig
from stepsearch_data.environments.retriever import find, retrieve
from tests.environments.conftest import GOLD_QUERIES


def test_answers_do_not_depend_on_what_else_waits(config: EnvironmentConfig) -> None:
    queries = [*GOLD_QUERIES, "zzyzx", *GOLD_QUERIES] * 20
    together = retrieve(config, queries)
    assert together == [find(config, query).result() for query in queries]
    assert together[2] == []


def test_whoever_asks_is_told_that_there_is_no_store(config: EnvironmentConfig) -> None:
    nowhere = replace(config, store=f"{config.store}-nowhere")
    for _ in range(2):
        with pytest.raises(StoreError):
            retrieve(nowhere, ["Rossini"])


def test_whoever_asks_is_told_that_the_engine_is_down(config: EnvironmentConfig) -> None:
    settings = ("engines.http.max_attempts=1", "engines.http.patience=0.1")
    down = replace(config, engine="http=http://127.0.0.1:9", settings=settings)
    for _ in range(2):
        with pytest.raises(SearchError, match="does not answer"):
            retrieve(down, ["Rossini"])

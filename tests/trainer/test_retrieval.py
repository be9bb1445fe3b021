"""The engine of a training, asked from many threads."""

from __future__ import annotations

from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from stepsearch_data.core.errors import SearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.indexes import Choice
from stepsearch_data.trainer.retrieval import open_finder
from tests.search_servers import Page, SearchServer
from tests.trainer.tiny import load

THREADS = 8


def test_nobody_waits_for_an_engine_that_is_closed(tmp_path: Path) -> None:
    """Whoever asks before, while and after it closes is told."""
    with SearchServer("http", lambda query: [Page("T", query)]) as server, ThreadPoolExecutor(THREADS) as pool:
        config = load(
            ["engines.use=['http']", f"engines.http.url='{server.url}'", f"llm.replay='{tmp_path / 'replay.sqlite'}'"]
        )
        begun = Event()
        with open_finder(Choice(), config, load, Reporter(quiet=True)) as (_, find):

            def ask() -> None:
                while True:
                    find(["capital"], 1)
                    begun.set()

            asking = [pool.submit(ask) for _ in range(THREADS)]
            assert begun.wait(10)
        for each in asking:
            with pytest.raises((SearchError, CancelledError)):
                each.result(10)
        with pytest.raises(SearchError, match="closed"):
            find(["capital"], 1)

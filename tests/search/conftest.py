"""Servers that are asked again at once, each with the key that it wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.remote import client
from tests.search.engines import World
from tests.search_servers import KEY, KEYS


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Engines that ask servers."""
    monkeypatch.setattr(client, "uniform", lambda *_: 0.0)
    for variable in KEYS.values():
        monkeypatch.setenv(variable, KEY)
    return World(tmp_path)

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.pipeline.store import Store
from stepsearch_data.remote import objects as objects_module
from tests.pipeline.machines import Machine
from tests.pipeline.tiny import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A tiny DAG with a source and a store of its own."""
    return World(tmp_path)


@pytest.fixture
def machine(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The store as a machine of that name sees it: each has a cache of its own."""
    monkeypatch.setattr(objects_module, "RETRIES", 0)

    def seen(name: str) -> Store:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return Store(Path(f"{bucket}/store"))

    return seen

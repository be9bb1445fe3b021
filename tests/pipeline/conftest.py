from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.tiny import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A tiny DAG with a source and a store of its own."""
    return World(tmp_path)

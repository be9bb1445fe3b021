"""Stores and releases made in this process, for tests of what others get."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepsearch_data.pipeline.config import load_config
from stepsearch_data.pipeline.engine import Build
from stepsearch_data.pipeline.progress import Meter, Reporter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release import Release, ReleaseSettings, write_release
from stepsearch_data.stages import STAGES, select


def build(root: Path, *settings: str, sources: Sequence[str] = ()) -> Store:
    """A store built from these sources, by default from the embedded sample."""
    config = load_config(STAGES, settings=settings, environment={}, store=root, sources=sources)
    job = Build(STAGES, config, select())
    job.run(Reporter(quiet=True))
    return job.store


def release(store: Store, folder: Path, **settings: Any) -> Release:
    """The store's release, as v1.0.0 of ann/data unless `settings` say otherwise."""
    fields = {"name": "ann/data", "version": "v1.0.0", **settings}
    return write_release(store, folder, ReleaseSettings(**fields), Meter(None, "release"))

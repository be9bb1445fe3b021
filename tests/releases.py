"""Stores and releases made in this process, for tests of what others get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from stepsearch_data.core.files import digest_of
from stepsearch_data.core.progress import Meter, Reporter
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.pipeline.runner import Runner
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.record import Release
from stepsearch_data.release.write import ReleaseSettings, write_release
from stepsearch_data.stages import STAGES, select


def build(root: Path, *settings: str, sources: Sequence[str] = ()) -> Store:
    """A store built from these sources, by default from the embedded sample."""
    config = load_config(STAGES, settings=settings, environment={}, store=root, sources=sources)
    job = Runner(STAGES, config, select())
    job.run(Reporter(quiet=True))
    return job.store


def release(store: Store, folder: Path, **settings: Any) -> Release:
    """The store's release, as v1.0.0 of ann/data unless `settings` say otherwise."""
    fields = {"name": "ann/data", "version": "v1.0.0", **settings}
    return write_release(store, folder, ReleaseSettings(**fields), Meter(None, "release"))


def forge(release: Path, spoil: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest of a release's store, as somebody may who writes all digests anew."""
    path, record_path = release / "store" / "manifest.json", release / "release.json"
    manifest = orjson.loads(path.read_bytes())
    spoil(manifest)
    path.write_bytes(orjson.dumps(manifest))
    record = orjson.loads(record_path.read_bytes())
    record["store"] = digest_of(path)
    record["files"]["store/manifest.json"] = {"sha256": digest_of(path), "bytes": path.stat().st_size, "rows": None}
    record_path.write_bytes(orjson.dumps(record))


def _stage(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    part: dict[str, Any] = manifest["stages"][name]
    return part


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a circle": (
        lambda m: _stage(m, "corpus")["fingerprint"]["inputs"].update(
            votes=_stage(m, "filter")["outputs"]["votes"]["digest"]
        ),
        "stages read each other in a circle",
    ),
    "no rejects": (
        lambda m: _stage(m, "filter")["outputs"].pop("rejects"),
        "it writes engine_votes, rejects, votes, and",
    ),
    "an empty fingerprint": (lambda m: _stage(m, "filter").update(fingerprint={}), "version: Field required"),
    "tries that are a list": (
        lambda m: _stage(m, "filter")["fingerprint"].update(retries=["q1"]),
        "retries: Input should be",
    ),
    "a path out of it": (
        lambda m: _stage(m, "filter")["outputs"]["votes"].update(path="../../votes.parquet"),
        "is not where votes lies",
    ),
    "more rows than there are": (lambda m: _stage(m, "filter")["outputs"]["votes"].update(rows=9), "rows instead of 9"),
}
"""How a release's store may be made to hold what no build writes, and what is said of it."""

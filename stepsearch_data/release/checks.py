"""What keeps a store from being released. Asked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from stepsearch_data.core.errors import PublishError, StoreError
from stepsearch_data.pipeline.catalog import LOGS, stale
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import PARAGRAPHS, PASSAGES, QUALITY, QUESTIONS, REJECTS, TABLES, TRAJECTORIES

_PATH = re.compile(r"(file:)?(/|~|\\\\|\.\.?/|[A-Za-z]:[\\/])")
_COMMITTED = tuple(table for table in TABLES if table not in (REJECTS, *LOGS))


def check_store(store: Store, manifest: Manifest, max_rejects: float) -> dict[str, Path]:
    """The files of a store's tables, by name.

    Raises StoreError where it is unfinished, out of date or damaged, PublishError where it holds nothing to release, or
    more of its sources' rows than the share `max_rejects` were set aside.
    """
    build = f"stepsearch-data build --store {store.root}"
    inputs = store.tables(manifest, *_COMMITTED)
    outdated = stale(store)
    if outdated:
        raise StoreError(f"the store is not up to date: {', '.join(outdated)} come from earlier inputs", build)
    store.check(manifest)
    if not _fit(inputs):
        raise PublishError(
            "nothing to release: no trajectory is complete and passed the quality gates",
            "see why: stepsearch-data audit",
        )
    _check_rejects(manifest, inputs, max_rejects)
    return inputs


def check_private(manifest: Manifest) -> None:
    """Raises PublishError where a recipe tells a path of the publisher's machine, such as a model's folder."""
    for name, entry in manifest.stages.items():
        recipe = entry.recipe
        for key, value in _strings({"config": recipe["config"], "engines": recipe.get("engines", {})}, name):
            if _PATH.match(value):
                raise PublishError(
                    f"the store's manifest tells a path of your machine: {key} = {value}",
                    "build with a model that is served under a name of its own, or allow it: --allow-paths",
                )


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """All texts inside of a value, each with its place."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)


def check_place(store: Store, folder: Path) -> None:
    """Raises PublishError where a release would lie in the store, or the store in the release."""
    ours, theirs = store.root.resolve(), folder.resolve()
    if theirs.is_relative_to(ours) or ours.is_relative_to(theirs):
        raise PublishError(f"{folder} and the store {store.root} lie in each other", "choose another --output")


def _fit(inputs: dict[str, Path]) -> int:
    """Number of trajectories that are fit for training."""
    complete = pl.scan_parquet(inputs[TRAJECTORIES.name], glob=False).filter("complete").select("question_id")
    passed = pl.scan_parquet(inputs[QUALITY.name], glob=False).filter("passed").select("question_id")
    return int(complete.join(passed, on="question_id", how="semi").select(pl.len()).collect().item())


def reject_share(manifest: Manifest, inputs: dict[str, Path]) -> tuple[int, int]:
    """Rows that any stage set aside, and rows that were read: questions and documents of their own, good or bad."""
    rejected = {stage: entry.outputs[REJECTS.name].rows or 0 for stage, entry in manifest.stages.items()}
    passages = pl.scan_parquet(inputs[PASSAGES.name], glob=False)
    free = passages.filter(pl.col("questions") == 0).select(pl.len()).collect().item()
    loaded = pq.read_metadata(inputs[QUESTIONS.name]).num_rows
    return sum(rejected.values()), loaded + int(free) + rejected[manifest.writer(PARAGRAPHS.name)]


def _check_rejects(manifest: Manifest, inputs: dict[str, Path], most: float) -> None:
    rejected, read = reject_share(manifest, inputs)
    if rejected > most * read:
        raise PublishError(
            f"{rejected:,} of {read:,} rows were set aside, more than {most:.1%}",
            'see why: stepsearch-data sql "SELECT stage, reason, count(*) FROM rejects GROUP BY ALL"; '
            "or allow it: --max-rejects 1",
        )

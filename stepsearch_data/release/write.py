"""Writing a release: the dataset's files, the store that they come from, the card, and the record of all."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from stepsearch_data.core.atomic import alone, place
from stepsearch_data.core.errors import PublishError, StoreError
from stepsearch_data.core.files import digest_of
from stepsearch_data.core.progress import Meter
from stepsearch_data.core.version import __version__
from stepsearch_data.pipeline.catalog import LOGS, catalog, check_current
from stepsearch_data.pipeline.demonstrations import refuse_templates
from stepsearch_data.pipeline.passes import KEEP_SOME
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.release.card import Statistics, card
from stepsearch_data.release.dataset import CONFIGS, CORPUS, TRACES, Config, Corpus, Item, items
from stepsearch_data.release.lineage import by_kind, lineage, origins, run_file
from stepsearch_data.release.picture import picture
from stepsearch_data.release.record import (
    CARD,
    DATA,
    NAME,
    OWN,
    PICTURE,
    REPORT,
    RUN_FILE,
    STORE,
    File,
    Record,
    Release,
    Split,
    read_record,
)
from stepsearch_data.release.shards import Shards
from stepsearch_data.report.write import report
from stepsearch_data.schemas import tables

_PATH = re.compile(r"(file:)?(/|~|\\\\|\.\.?/|[A-Za-z]:[\\/])")
_COMMITTED = tuple(table for table in tables.TABLES if table not in (tables.REJECTS, *tables.OPTIONAL, *LOGS))
_REPORTED = 25_000  # trajectories of a report: it is one file, which a browser reads whole
_WITHOUT = "publish without --traces"
_COMMAND = f"stepsearch-data build --config {RUN_FILE}"


class ReleaseSettings(BaseModel):
    """What a publisher decides. `licences` are their words for sources of their own, by kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")
    version: str | None = Field(default=None, pattern=r"^\w[\w.+/-]*$")
    licences: dict[str, str] = {}
    max_rejects: float = Field(default=0.05, ge=0, le=1)
    allow_paths: bool = False
    allow_templates: bool = False
    traces: bool = False
    shard_bytes: int = Field(default=500_000_000, ge=1)


def write_release(store: Store, folder: Path, settings: ReleaseSettings, meter: Meter) -> Release:
    """Write a store's release into a folder that is new, empty or an earlier release.

    Equal stores, call logs and settings give equal bytes. Nothing is left where it fails. Raises StoreError and
    PublishError as `_check_store` does, PublishError for the place, ConfigError for a licence, OSError.
    """
    _check_place(store, folder)
    with store.reading() as manifest:
        inputs = _check_store(store, manifest, settings.max_rejects)
        if settings.traces and tables.ROLLOUTS not in inputs:
            raise PublishError("there are no traces: the store keeps no rollouts", KEEP_SOME)
        if not settings.allow_templates:
            refuse_templates(inputs[tables.QUESTIONS])
        if not settings.allow_paths:
            _check_private(manifest)
        found = origins(manifest.stages["load"].fingerprint, settings.licences)
        with placing(folder) as staging:
            configs = _write_data(staging, inputs, Corpus(inputs, by_kind(found)), settings, meter)
            if settings.traces and TRACES.name not in configs:
                raise PublishError("there are no traces: no rollout is of a question that is released", _WITHOUT)
            digest = _copy_store(store, manifest, staging / STORE)
            _show(staging, settings.name, meter)
            text = run_file(manifest, found)
            (staging / RUN_FILE).write_text(text, encoding="utf-8")
            files = _files(staging)
            record = Record(
                name=settings.name,
                version=settings.version,
                package=__version__,
                store=digest,
                command=_COMMAND,
                run_file=text,
                lineage=lineage(store, manifest, found),
                configs=configs,
                files=files,
            )
            (staging / CARD).write_text(card(Statistics(staging, record, store, manifest), found), encoding="utf-8")
            record = record.model_copy(update={"files": {CARD: _file(staging / CARD), **files}})
            (staging / NAME).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Release(folder, record)


def _write_data(
    staging: Path, inputs: tables.Inputs, corpus: Corpus, settings: ReleaseSettings, meter: Meter
) -> dict[str, dict[str, Split]]:
    """Write all configs; the splits of each, train before validation."""
    open_files: dict[tuple[Config, str], Shards] = {}

    def shards(config: Config, split: str) -> Shards:
        if (config, split) not in open_files:
            opened = Shards(staging / DATA / config.name, split, config, settings.shard_bytes)
            stack.callback(opened.close)
            open_files[config, split] = opened
        return open_files[config, split]

    total = sum(pq.read_metadata(inputs[table]).num_rows for table in (tables.QUESTIONS, tables.PASSAGES))
    passages = ([Item(CORPUS, "train", row)] for row in corpus.rows())
    with ExitStack() as stack:
        for together in meter.track(chain(items(inputs, corpus, traces=settings.traces), passages), total):
            for item in together:
                shards(item.config, item.split).append(item.row)
        configs: dict[str, dict[str, Split]] = {config.name: {} for config in CONFIGS}
        for (config, split), file in sorted(open_files.items(), key=lambda item: item[0][1]):
            paths = tuple(path.relative_to(staging).as_posix() for path in file.finish())
            configs.setdefault(config.name, {})[split] = Split(rows=file.rows, bytes=file.bytes, files=paths)
    return configs


def _copy_store(store: Store, manifest: Manifest, folder: Path) -> str:
    """Copy the committed tables, without logs and indexes; return the store's digest. Raises StoreError."""
    folder.mkdir()
    for entry in manifest.stages.values():
        for name, output in entry.outputs.items():
            if output.rows is None:
                continue
            target = folder / output.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(store.path(output), target)
            if digest_of(target) != output.digest:
                raise StoreError(f"{name} is damaged", "stepsearch-data build --force makes it again")
    (folder / "manifest.json").write_bytes(store.committed())
    if Store(folder).manifest() != manifest:
        raise StoreError(f"a build has changed {store.name} meanwhile", "wait for it, then run the same command again")
    (folder / "catalog.sql").write_text(catalog(manifest), encoding="utf-8")
    return Store(folder).digest()


def _show(staging: Path, name: str, meter: Meter) -> None:
    """Write the picture where it can be drawn, and the report unless it were too large, of the copied store.

    The copy has no logs and no marks of a reader, which are nobody else's.
    """
    copied = Store(staging / STORE)
    manifest = copied.manifest()
    drawn = picture(copied, manifest)
    if drawn:
        (staging / PICTURE).write_bytes(drawn)
    else:
        meter.tell("the card has no picture, and the report no charts: pip install 'stepsearch-data[charts]'")
    output = manifest.output(tables.TRAJECTORIES.name)
    if output and output.rows is not None and output.rows <= _REPORTED:
        report(copied, staging / REPORT, Meter(None, "report"), title=name, one_file=sys.maxsize)


def _files(staging: Path) -> dict[str, File]:
    """List all files of the folder."""
    paths = sorted(path for path in staging.rglob("*") if path.is_file())
    return {path.relative_to(staging).as_posix(): _file(path) for path in paths}


def _file(path: Path) -> File:
    return File.of(path, pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None)


def _check_store(store: Store, manifest: Manifest, max_rejects: float) -> tables.Inputs:
    """Return the files of a store's tables, by name.

    Raises StoreError where it is unfinished, out of date or damaged, PublishError where it holds nothing to release, or
    where the share of rejected rows of its sources exceeds `max_rejects`.
    """
    inputs = store.tables(manifest, *_COMMITTED, *(t for t in tables.OPTIONAL if manifest.output(t.name)))
    check_current(store)
    store.check(manifest)
    if not _fit(inputs):
        raise PublishError(
            "nothing to release: no trajectory is complete and passed the quality gates",
            "see why: stepsearch-data audit",
        )
    _check_rejects(manifest, inputs, max_rejects)
    return inputs


def _check_private(manifest: Manifest) -> None:
    """Raise PublishError where a fingerprint tells a path of the publisher's machine, such as a model's folder."""
    for name, entry in manifest.stages.items():
        fingerprint = entry.fingerprint
        for key, value in _strings({"config": fingerprint["config"], "engines": fingerprint.get("engines", {})}, name):
            if _PATH.match(value):
                raise PublishError(
                    f"the store's manifest tells a path of your machine: {key} = {value}",
                    "build with a model that is served under a name of its own, or allow it: --allow-paths",
                )


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield all texts inside of a value, each with its place."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)


def _check_place(store: Store, folder: Path) -> None:
    """Raise PublishError where a release would lie in the store, or the store in the release."""
    ours, theirs = store.root.resolve(), folder.resolve()
    if theirs.is_relative_to(ours) or ours.is_relative_to(theirs):
        raise PublishError(f"{folder} and the store {store.name} lie in each other", "choose another --output")


def _fit(inputs: tables.Inputs) -> int:
    """Count the trajectories that are fit for training."""
    complete = pl.scan_parquet(inputs[tables.TRAJECTORIES], glob=False).filter("complete").select("question_id")
    passed = pl.scan_parquet(inputs[tables.QUALITY], glob=False).filter("passed").select("question_id")
    return int(complete.join(passed, on="question_id", how="semi").select(pl.len()).collect().item())


def _check_rejects(manifest: Manifest, inputs: tables.Inputs, most: float) -> None:
    """Raise PublishError where stages rejected more than this share of what was read.

    That is questions, own documents and chains, no rollouts.
    """
    rejects = {
        stage: entry.outputs[tables.REJECTS.name].rows or 0
        for stage, entry in manifest.stages.items()
        if tables.ROLLOUTS.name not in entry.outputs
    }
    documents = pl.scan_parquet(inputs[tables.PASSAGES], glob=False).filter(pl.col("questions") == 0).select(pl.len())
    loaded = pq.read_metadata(inputs[tables.QUESTIONS]).num_rows + rejects[manifest.writer(tables.PARAGRAPHS.name)]
    chains = pq.read_metadata(inputs[tables.CHAINS]).num_rows
    rejected, read = sum(rejects.values()), loaded + int(documents.collect().item()) + chains
    if rejected > most * read:
        raise PublishError(
            f"{rejected:,} of {read:,} rows were rejected, more than {most:.1%}",
            'see why: stepsearch-data sql "SELECT stage, reason, count(*) FROM rejects GROUP BY ALL"; '
            "or allow it: --max-rejects 1",
        )


@contextmanager
def placing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write a release into; it replaces `folder` when the block ends well.

    An earlier release there is replaced. Raises PublishError where the folder holds other files, or another
    process writes there; OSError.
    """
    _refuse_foreign(folder)
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.new")
    busy = PublishError(f"another process is writing {folder}", "wait for it, or choose another --output")
    with alone(staging, busy):
        try:
            yield staging
            _refuse_foreign(folder)
            place(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _refuse_foreign(folder: Path) -> None:
    """Raise PublishError where a folder holds anything that is not a release's."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PublishError(f"cannot write a release to {folder}: it is a file", "choose another --output")
    there = sorted(path.name for path in folder.iterdir())
    if there:
        foreign = [name for name in there if name not in OWN]
        if foreign or "release.json" not in there:
            named = ", ".join((foreign or there)[:3])
            raise PublishError(f"{folder} holds {named}, which no release wrote", "choose another --output")
        read_record(folder)

"""Writing a release: the dataset's files, the store that they come from, the card, and the record of all."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from stepsearch_data import __version__
from stepsearch_data.core.digest import digest_of
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.catalog import catalog
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.release.card import card
from stepsearch_data.release.checks import check_place, check_private, check_store
from stepsearch_data.release.licences import by_kind, origins
from stepsearch_data.release.lineage import lineage, run_file
from stepsearch_data.release.placing import placing
from stepsearch_data.release.reading import Corpus, items
from stepsearch_data.release.record import CARD, DATA, NAME, RUN_FILE, STORE, File, Record, Split
from stepsearch_data.release.shards import Shards
from stepsearch_data.release.statistics import Statistics
from stepsearch_data.release.tables import CONFIGS, CORPUS
from stepsearch_data.schemas.tables import PASSAGES, QUESTIONS

_COMMAND = f"stepsearch-data build --config {RUN_FILE}"


class ReleaseSettings(BaseModel):
    """What a publisher decides. `licences` are their words for sources of their own, by kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")
    version: str | None = Field(default=None, pattern=r"^\w[\w.+/-]*$")
    licences: dict[str, str] = {}
    max_rejects: float = Field(default=0.05, ge=0, le=1)
    allow_paths: bool = False
    shard_bytes: int = Field(default=500_000_000, ge=1)


@dataclass(frozen=True)
class Release:
    """A release that lies in a folder."""

    folder: Path
    record: Record


def write_release(store: Store, folder: Path, settings: ReleaseSettings, meter: Meter) -> Release:
    """Write a store's release into a folder that is new, empty or an earlier release.

    Equal stores, call logs and settings give equal bytes. Nothing is left where it fails. Raises StoreError and
    PublishError as `check_store` does, PublishError for the place, ConfigError for a licence, OSError.
    """
    check_place(store, folder)
    with store.reading() as manifest:
        inputs = check_store(store, manifest, settings.max_rejects)
        if not settings.allow_paths:
            check_private(manifest)
        found = origins(manifest.stages["load"].recipe, settings.licences)
        with placing(folder) as staging:
            configs = _write_data(staging, inputs, Corpus(inputs, by_kind(found)), settings.shard_bytes, meter)
            digest = _copy_store(store, manifest, staging / STORE)
            text = run_file(manifest, found)
            (staging / RUN_FILE).write_text(text, encoding="utf-8")
            record = Record(
                name=settings.name,
                version=settings.version,
                package=__version__,
                store=digest,
                command=_COMMAND,
                run_file=text,
                lineage=lineage(store, manifest, found),
                configs=configs,
                files=_files(staging),
            )
            (staging / CARD).write_text(card(Statistics(staging, record, store, manifest), found), encoding="utf-8")
            record = record.model_copy(update={"files": _files(staging)})
            (staging / NAME).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Release(folder, record)


def _write_data(
    staging: Path, inputs: Mapping[str, Path], corpus: Corpus, shard_bytes: int, meter: Meter
) -> dict[str, dict[str, Split]]:
    """Write all configs; the splits of each, train before validation."""
    open_files: dict[tuple[str, str], Shards] = {}

    def shards(config_name: str, split: str) -> Shards:
        key = (config_name, split)
        if key not in open_files:
            config = next(config for config in CONFIGS if config.name == config_name)
            open_files[key] = Shards(staging / DATA / config_name, split, config, shard_bytes)
            stack.callback(open_files[key].close)
        return open_files[key]

    counts = [pq.read_metadata(inputs[table.name]).num_rows for table in (QUESTIONS, PASSAGES)]
    meter.expect(sum(counts))
    with ExitStack() as stack:
        for question in items(inputs, corpus):
            for item in question:
                shards(item.config.name, item.split).append(item.row)
            meter.advance()
        for row in corpus.rows():
            shards(CORPUS.name, "train").append(row)
            meter.advance()
        written = {key: file.finish() for key, file in open_files.items()}
    configs: defaultdict[str, dict[str, Split]] = defaultdict(dict)
    for config in CONFIGS:
        for name, split in sorted(key for key in written if key[0] == config.name):
            done = written[name, split]
            paths = tuple(path.relative_to(staging).as_posix() for path in done.paths)
            configs[name][split] = Split(rows=done.rows, bytes=done.size, files=paths)
    return dict(configs)


def _copy_store(store: Store, manifest: Manifest, folder: Path) -> str:
    """Copy the committed tables, without logs and indexes; the store's digest. Raises StoreError."""
    folder.mkdir()
    for entry in manifest.stages.values():
        for name, output in entry.outputs.items():
            if output.rows is None:
                continue
            target = folder / output.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(store.path(output), target)
            if digest_of(target) != output.digest:
                raise StoreError(f"{name} is damaged", "stepsearch-data build --force makes it anew")
    shutil.copyfile(store.root / "manifest.json", folder / "manifest.json")
    if Store(folder).manifest() != manifest:
        raise StoreError(f"a build has changed {store.root} meanwhile", "wait for it, then run the same command again")
    (folder / "catalog.sql").write_text(catalog(manifest), encoding="utf-8")
    return Store(folder).digest()


def _files(staging: Path) -> dict[str, File]:
    """All files of the folder."""
    paths = sorted(path for path in staging.rglob("*") if path.is_file())
    return {path.relative_to(staging).as_posix(): _file(path) for path in paths}


def _file(path: Path) -> File:
    rows = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None
    return File(sha256=digest_of(path), bytes=path.stat().st_size, rows=rows)

"""The store: a folder of Parquet tables that a manifest commits to.

    store/
      manifest.json                           what is committed; replaced atomically, last
      catalog.sql                             views over the tables, for any DuckDB
      stages/<stage>-<fingerprint>/*.parquet  one folder per stage, named by its fingerprint
      marks.jsonl                             what a reader says of trajectories; no build touches it
      log/builds.jsonl                        what ran when, and for how long

A reader sees the manifest as it was before or after a commit, never in between. Folders that the manifest
does not name come from an interrupted build. The next build removes them when no reader is left. A store at a URL has
the same files; its `root` is a local mirror of it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from stepsearch_data.core.atomic import lock, place, write_whole
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.files import digest_of, read_regular
from stepsearch_data.pipeline.changing_files import GLANCE
from stepsearch_data.pipeline.manifest import MOST, Entry, Manifest, Output, with_stage, without_stages
from stepsearch_data.pipeline.readable import ReadableStore, size_of
from stepsearch_data.pipeline.stage import Fingerprint

__all__ = ["Entry", "Manifest", "Output", "Store"]

_STAGE_FOLDER = re.compile(r".+-[0-9a-f]{12}(\.\d+)?")
_RETRIES = TypeAdapter(dict[str, dict[str, Annotated[int, Field(ge=0, lt=1 << 32)]]])


class Store(ReadableStore):
    """A store's folder, or its URL. The constructor touches no file."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the store for one build; within the lock, again. The kernel releases it even after kill -9."""
        if self.is_locked:
            yield
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = open(self.root / ".lock", "a+", opener=_no_link)  # noqa: SIM115 - closed below, with the lock
        except OSError as error:
            raise StoreError(f"cannot write the store {self.name}: {error.strerror or error}") from error
        with handle:
            if not lock(handle, seconds=GLANCE if self.mirror else 0):
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                raise StoreError(
                    f"another build is writing {self.name} (process {owner})",
                    "wait for it, or give this build a --store of its own",
                )
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            self.manifest()  # refuses a folder of another kind before anything is written
            for name in ("stages", "log"):
                self.inside(name)
            try:
                with self.mirror.leased() if self.mirror else nullcontext():
                    self.is_locked = True
                    yield
            finally:
                self.is_locked = False
                handle.truncate(0)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a fresh folder for a stage's outputs. It is removed afterwards unless committed."""
        folder = self.root / ".staging"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, stage: str, name: str, fingerprint: Fingerprint, staged: Path, rows: dict[str, int]) -> Entry:
        """Make a staged folder the stage's committed one.

        `rows` counts the rows of each table. The files reach the disk before the manifest does.
        """
        outputs = {path.name.removesuffix(".parquet"): path for path in sorted(staged.iterdir())}
        digests = {key: digest_of(path) for key, path in outputs.items()}
        folder = self._place(staged, f"{stage}-{name}", digests)
        entry = Entry(
            fingerprint=fingerprint,
            folder=folder.relative_to(self.root).as_posix(),
            outputs={
                key: Output(
                    path=(folder / path.name).relative_to(self.root).as_posix(),
                    digest=digests[key],
                    rows=rows.get(key),
                    bytes=size_of(folder / path.name),
                )
                for key, path in outputs.items()
            },
        )
        self._write(with_stage(self.manifest(), stage, entry))
        return entry

    def drop(self, stages: Collection[str]) -> None:
        """Take stages and their tables out of the manifest. Their files go with the next `sweep`."""
        self._write(without_stages(self.manifest(), stages))

    def _write(self, manifest: Manifest) -> None:
        write_whole(self.manifest_path, manifest.model_dump_json(indent=1).encode())
        if self.mirror:
            self.mirror.publish()

    def write_text(self, name: str, text: str) -> None:
        """Replace a file at the root of the store atomically."""
        write_whole(self.root / name, text.encode())

    def retries(self, stage: str) -> dict[str, int]:
        """Return how often each question of a stage was tried again, by question id."""
        return self._all_retries().get(stage, {})

    def try_again(self, stage: str, question_ids: Iterable[str]) -> None:
        """Count one more try for these questions of a stage."""
        known = self._all_retries()
        tries = known.setdefault(stage, {})
        for question_id in question_ids:
            tries[question_id] = tries.get(question_id, 0) + 1
        self.write_text("retries.json", orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode())

    def _all_retries(self) -> dict[str, dict[str, int]]:
        path = self.beside("retries.json")
        try:
            return _RETRIES.validate_json(read_regular(path, MOST), strict=True)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it does not count tries by stage and question"
            hint = "remove it: what a model or an engine was asked again about is then asked for as at first"
            raise StoreError(f"cannot read {path}: {reason}", hint) from error

    def log(self, name: str, record: dict[str, object]) -> None:
        """Append a record to the log of that name (builds, llm_calls)."""
        path = f"{self.root}/log/{name}.jsonl"
        append = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            file = os.open(path, append, 0o666)  # takes a third of the time of open(), and is done for every call
        except FileNotFoundError:
            (self.root / "log").mkdir(exist_ok=True)
            file = os.open(path, append, 0o666)
        try:
            os.write(file, orjson.dumps(record) + b"\n")
        finally:
            os.close(file)

    def _place(self, staged: Path, name: str, digests: dict[str, str]) -> Path:
        """Move a staged folder to its name. A folder there with the same bytes stays and gets what it lacks."""
        target = self.root / "stages" / name
        target.parent.mkdir(exist_ok=True)
        for number in count(1):
            target = target.with_name(f"{name}.{number}" if number > 1 else name)
            if self.mirror and not self.mirror.takes(target.relative_to(self.root).as_posix(), staged):
                continue
            if not os.path.lexists(target):
                place(staged, target)
                break
            if target.is_dir() and not target.is_symlink() and _held(target).items() <= digests.items():
                for path in staged.iterdir():
                    if not (target / path.name).exists():
                        place(path, target / path.name)
                break
        return target

    def sweep(self) -> None:
        """Remove what the manifest does not name: staging, and folders of interrupted or replaced stages."""
        shutil.rmtree(self.root / ".staging", ignore_errors=True)
        kept = {entry.folder for entry in self.manifest().stages.values()}
        stages = self.root / "stages"
        with self.sharing(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            for folder in stages.iterdir() if alone and stages.is_dir() else []:
                ours = _STAGE_FOLDER.fullmatch(folder.name)  # --store may name a folder with other files
                if ours and not folder.is_symlink() and folder.relative_to(self.root).as_posix() not in kept:
                    shutil.rmtree(folder)


def _held(folder: Path) -> dict[str, str]:
    """Return the digests of the outputs in a stage's folder, by name; "" for what cannot be read."""
    digests = {}
    for path in sorted(folder.iterdir()):
        try:
            digests[path.name.removesuffix(".parquet")] = digest_of(path)
        except OSError:
            digests[path.name] = ""
    return digests


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)

"""The store: a folder of Parquet tables that a manifest commits to.

    store/
      manifest.json                      what is committed; replaced atomically, last
      catalog.sql                        views over the tables, for any DuckDB
      stages/<stage>-<recipe>/*.parquet  one folder a stage, named by its recipe
      log/builds.jsonl                   what ran when, and for how long

A reader sees the manifest as it was before or after a commit, never in between. Folders that no
manifest names are left-overs of an interrupted build; the next build removes them, once nobody reads.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from stepsearch_data.pipeline.digest import digest_of
from stepsearch_data.pipeline.errors import StoreError
from stepsearch_data.pipeline.stage import Recipe

FORMAT = 1
_STAGE_FOLDER = re.compile(r".+-[0-9a-f]{12}(\.\d+)?")


class Output(BaseModel):
    """A committed table or folder. `digest` is the SHA-256 of its bytes; `rows` is null for a folder."""

    model_config = ConfigDict(frozen=True)

    path: str
    digest: str
    rows: int | None
    bytes: int


class Entry(BaseModel):
    """A committed stage."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    folder: str
    outputs: dict[str, Output]


class _Format(BaseModel):
    """What manifests of all formats have."""

    format: int


class Manifest(BaseModel):
    """What a store holds."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    stages: dict[str, Entry] = {}

    def output(self, name: str) -> Output | None:
        """The committed output of this name, whichever stage wrote it."""
        return next((e.outputs[name] for e in self.stages.values() if name in e.outputs), None)

    def writer(self, name: str) -> str:
        """The committed stage that wrote an output. Raises StopIteration where none did."""
        return next(stage for stage, entry in self.stages.items() if name in entry.outputs)

    def is_fresh(self, stage: str) -> bool:
        """Whether the stage's rows were made from what is committed now, and that from what it was made from."""
        recorded = self.stages[stage].recipe["inputs"]
        now = {name: output for name in recorded if (output := self.output(name))}
        return all(o.digest == recorded[name] and self.is_fresh(self.writer(name)) for name, o in now.items())


class Store:
    """A store's folder. Constructing one touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, root: Path) -> Store:
        """An existing store, to read. Raises StoreError where there is none."""
        store = cls(root)
        if not store._manifest_path.is_file():
            raise StoreError(f"there is no store at {root}", f"make one: stepsearch-data build --store {root}")
        return store

    @property
    def _manifest_path(self) -> Path:
        return self.root / "manifest.json"

    def manifest(self) -> Manifest:
        """What is committed now; an empty manifest where nothing is."""
        try:
            data = self._manifest_path.read_bytes()
            found = _Format.model_validate_json(data).format
            if found != FORMAT:
                raise StoreError(
                    f"{self.root} has store format {found}; this version reads {FORMAT}",
                    "use the version of stepsearch-data that wrote it, or build anew",
                )
            return Manifest.model_validate_json(data)
        except FileNotFoundError:
            return Manifest()
        except OSError as error:
            raise StoreError(f"cannot read the store {self.root}: {error.strerror}") from error
        except ValidationError as error:
            raise StoreError(f"{self._manifest_path} is not a store's manifest", "choose another --store") from error

    def digest(self) -> str:
        """SHA-256 of the manifest: two stores with the same one hold the same bytes in every table."""
        return digest_of(self._manifest_path)

    def is_whole(self, output: Output) -> bool:
        """Whether an output is there in its committed size."""
        path = self.path(output)
        return path.exists() and _size(path) == output.bytes

    def path(self, output: Output) -> Path:
        """Where an output lies."""
        return self.root / output.path

    @contextmanager
    def reading(self) -> Iterator[Manifest]:
        """What is committed. A build that replaces it leaves the files in place until the block ends."""
        with self._sharing(fcntl.LOCK_SH):
            yield self.manifest()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for one build; released by the kernel even after kill -9."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = open(self.root / ".lock", "a+")  # noqa: SIM115 - closed below, after the lock is given up
        except OSError as error:
            raise StoreError(f"cannot write the store {self.root}: {error.strerror}") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                raise StoreError(
                    f"another build is writing {self.root} (process {owner})",
                    "wait for it, or give this build a --store of its own",
                ) from error
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            self.manifest()  # a folder that is somebody else's is refused before anything is touched
            try:
                yield
            finally:
                handle.truncate(0)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A fresh folder to write a stage's outputs into; gone afterwards unless committed."""
        folder = self.root / ".staging"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, stage: str, name: str, recipe: Recipe, staged: Path, rows: dict[str, int]) -> Entry:
        """Make a staged folder the stage's committed one.

        `rows` counts the rows of each table. The files reach the disk before the manifest does.
        """
        outputs = {path.name.removesuffix(".parquet"): path for path in sorted(staged.iterdir())}
        digests = {key: digest_of(path) for key, path in outputs.items()}
        folder = self._place(staged, f"{stage}-{name}", digests)
        entry = Entry(
            recipe=recipe,
            folder=folder.relative_to(self.root).as_posix(),
            outputs={
                key: Output(
                    path=(folder / path.name).relative_to(self.root).as_posix(),
                    digest=digests[key],
                    rows=rows.get(key),
                    bytes=_size(folder / path.name),
                )
                for key, path in outputs.items()
            },
        )
        stages = dict(sorted({**self.manifest().stages, stage: entry}.items()))
        self._replace(self._manifest_path, Manifest(stages=stages).model_dump_json(indent=1).encode())
        return entry

    def write_text(self, name: str, text: str) -> None:
        """Replace a file at the root of the store atomically."""
        self._replace(self.root / name, text.encode())

    def retries(self, stage: str) -> dict[str, int]:
        """How often each question of a stage was tried again, by question id."""
        return self._all_retries().get(stage, {})

    def try_again(self, stage: str, question_ids: Iterable[str]) -> None:
        """Count one more try for these questions of a stage."""
        known = self._all_retries()
        tries = known.setdefault(stage, {})
        for question_id in question_ids:
            tries[question_id] = tries.get(question_id, 0) + 1
        self.write_text("retries.json", orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode())

    def log(self, name: str, record: dict[str, object]) -> None:
        """Append a record to the log of that name (builds, llm_calls)."""
        path = f"{self.root}/log/{name}.jsonl"
        append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            file = os.open(path, append, 0o666)  # a third of what open() takes: this is done for every call
        except FileNotFoundError:
            (self.root / "log").mkdir(exist_ok=True)
            file = os.open(path, append, 0o666)
        try:
            os.write(file, orjson.dumps(record) + b"\n")
        finally:
            os.close(file)

    def _all_retries(self) -> dict[str, dict[str, int]]:
        path = self.root / "retries.json"
        return orjson.loads(path.read_bytes()) if path.exists() else {}

    def has_log(self, name: str) -> bool:
        """Whether anything was logged under that name."""
        return (self.root / "log" / f"{name}.jsonl").exists()

    def read_log(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of a log; a line that a crash cut short is left out."""
        path = self.root / "log" / f"{name}.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as file:
            for line in file:
                with suppress(orjson.JSONDecodeError):
                    yield orjson.loads(line)

    def _place(self, staged: Path, name: str, digests: dict[str, str]) -> Path:
        """Move a staged folder to its name; where that holds the same, byte for byte, add what it lacks."""
        sync(staged)
        target = self.root / "stages" / name
        target.parent.mkdir(exist_ok=True)
        number = 1
        while target.exists():
            there = {p.name.removesuffix(".parquet"): digest_of(p) for p in sorted(target.iterdir())}
            if there.items() <= digests.items():
                for path in staged.iterdir():
                    if not (target / path.name).exists():
                        path.rename(target / path.name)
                _sync_folder(target)
                return target
            number += 1
            target = target.with_name(f"{name}.{number}")
        staged.rename(target)
        _sync_folder(target.parent)
        return target

    def sweep(self) -> None:
        """Remove what no manifest names: staging, and folders of interrupted or superseded stages."""
        shutil.rmtree(self.root / ".staging", ignore_errors=True)
        kept = {entry.folder for entry in self.manifest().stages.values()}
        stages = self.root / "stages"
        with self._sharing(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            for folder in stages.iterdir() if alone and stages.is_dir() else []:
                ours = _STAGE_FOLDER.fullmatch(folder.name)  # a --store may point at somebody's own folder
                if ours and folder.relative_to(self.root).as_posix() not in kept:
                    shutil.rmtree(folder)

    @contextmanager
    def _sharing(self, mode: int) -> Iterator[bool]:
        """Lock the folder itself: readers share it, a sweep has it alone. False where others hold it."""
        handle = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, mode)
                free = True
            except OSError as error:  # some network file systems lock no folders; no reason not to read
                free = not isinstance(error, BlockingIOError)
            yield free
        finally:
            os.close(handle)

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.new")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def sync(folder: Path) -> None:
    """Force a folder and all its files to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

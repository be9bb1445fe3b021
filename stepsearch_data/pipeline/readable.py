"""Reading a store. All access to its files goes through here, as a store may come from a stranger.

A store at a URL is read from its mirror, a local folder that gets what is read.

Only regular files inside of the folder are opened. A table that is not as its manifest says is a StoreError.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, Self

import orjson
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from stepsearch_data.core.errors import StepSearchError, StoreError, without_traceback
from stepsearch_data.core.files import digest_of, open_regular, read_regular
from stepsearch_data.pipeline.manifest import MOST, Manifest, Output, parse_manifest
from stepsearch_data.pipeline.mirror import CommittedPath, mirror_of
from stepsearch_data.schemas.rows import Mark
from stepsearch_data.schemas.tables import LLM_CALLS, MARKS, SEARCH_CALLS, TABLES, Table

_LONGEST = 1 << 20  # bytes of a line of a log
_RECORDS: dict[str, TypeAdapter[Any]] = {
    "builds": TypeAdapter(dict[str, str | int | float]),
    LLM_CALLS.name: TypeAdapter(LLM_CALLS.row),
    SEARCH_CALLS.name: TypeAdapter(SEARCH_CALLS.row),
    MARKS.name: TypeAdapter(MARKS.row),
}
"""The type of each log's records."""


class ReadableStore:
    """A store's folder, or its URL, to read. The constructor touches no file."""

    def __init__(self, root: Path) -> None:
        self.mirror = mirror_of(root)
        self.is_locked = False  # by this process, for a build
        self._is_settled = False
        # Arrow would read `hf:x/…` as an address, but not an absolute path.
        self.root = self.mirror.root if self.mirror else root.absolute() if ":" in "".join(root.parts[:1]) else root

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open an existing store, to read. Raises StoreError where there is none."""
        store = cls(root)
        if not (store.mirror.manifest().stages if store.mirror else store.manifest_path.is_file()):
            raise StoreError(
                f"there is no store at {store.name}", f"make one: stepsearch-data build --store {store.name}"
            )
        return store

    @property
    def name(self) -> str:
        """Return what the user calls the store: its path or its URL."""
        return self.mirror.url if self.mirror else str(self.root)

    @property
    def label(self) -> str:
        """Return the last part of its name, which tells nothing of this machine."""
        return PurePath(self.mirror.url if self.mirror else self.root.resolve()).name

    @property
    def manifest_path(self) -> Path:
        """Return the path of the file that names all others."""
        return self.root / "manifest.json"

    def manifest(self) -> Manifest:
        """Read what is committed now. Without a manifest file it is an empty one. Raises StoreError."""
        try:
            return parse_manifest(self.committed(), f"{self.name}/manifest.json")
        except FileNotFoundError:
            return Manifest()
        except OSError as error:
            raise StoreError(f"cannot read the store {self.name}: {error.strerror}") from error

    def committed(self) -> bytes:
        """Return the bytes of the manifest file. Raises OSError, StoreError."""
        if self.mirror and not self.is_locked:
            return self.mirror.published()
        return read_regular(self.inside("manifest.json"), MOST)

    def digest(self) -> str:
        """Return the SHA-256 of the manifest. Stores with the same digest hold the same bytes in every table."""
        return hashlib.sha256(self.committed()).hexdigest()

    def is_whole(self, output: Output) -> bool:
        """Tell whether an output is there in its committed size."""
        if self.mirror:
            return self.mirror.is_whole(output)
        try:
            return size_of(self.path(output)) == output.bytes
        except StoreError:
            return False

    def has(self, output: Output) -> bool:
        """Tell whether anything of an output is there: a store that was pulled comes without its index."""
        return bool(self.mirror.files(output)) if self.mirror else self.inside(output.path).exists()

    def path(self, output: Output) -> Path:
        """Return the path of a committed file or folder. Raises StoreError where it is missing or outside of the store.

        Everything that a manifest names is opened through this and `table`, as a store may come from a stranger.
        """
        path = self.inside(output.path)
        if self.mirror:
            self.mirror.fetch(output)
        if output.rows is None and path.is_dir():
            for entry in path.rglob("*"):
                self.inside(entry.relative_to(self.root).as_posix())
                if not (entry.is_file() or entry.is_dir()):
                    raise self._damage(entry, "it is not a regular file")
        elif not path.exists():
            raise StoreError(f"{self.name}/{output.path} is missing from the store", self._remedy)
        elif output.rows is None or not path.is_file():
            raise self._damage(path, "it is not a folder" if output.rows is None else "it is not a regular file")
        return CommittedPath(path) if self.mirror else path

    def table(self, table: Table[Any], output: Output) -> Path:
        """Return the file of a committed table. Raises StoreError where it is missing, cut short or another table."""
        import pyarrow.parquet as pq

        path = self.path(output)
        if size_of(path) != output.bytes:
            raise self._damage(path, f"it has {size_of(path):,} bytes instead of {output.bytes:,}")
        try:
            with open_regular(path) as file:
                metadata = pq.read_metadata(file)
                schema = metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError) as error:
            raise self._damage(path, str(error).partition("\n")[0]) from error
        if not table.fits(schema):
            raise self._damage(path, f"its columns are not those of {table.name}")
        if metadata.num_rows != output.rows:
            raise self._damage(path, f"it has {metadata.num_rows:,} rows instead of {output.rows:,}")
        return path

    def tables(self, manifest: Manifest, *tables: Table[Any]) -> dict[Table[Any], Path]:
        """Return the files of these tables. Raises StoreError, also where one is not built yet."""
        outputs = {table: manifest.output(table.name) for table in tables}
        if not all(outputs.values()):
            raise StoreError("the store is not built to its end", f"stepsearch-data build --store {self.name}")
        return {table: self.table(table, output) for table, output in outputs.items() if output}

    def check(self, manifest: Manifest, aside: Collection[str] = ()) -> None:
        """Check every committed table as `table` does, but those `aside`. Raises StoreError."""
        known = {table.name: table for table in TABLES if table.name not in aside}
        for entry in manifest.stages.values():
            for name, output in entry.outputs.items():
                if name in known:
                    self.table(known[name], output)

    def _damage(self, path: Path, reason: str) -> StoreError:
        return StoreError(f"{path} is damaged: {reason}", self._remedy)

    @property
    def _remedy(self) -> str:
        where = shlex.quote(self.name)
        return (
            f"stepsearch-data verify {where} tells all that is wrong; "
            f"stepsearch-data build --store {where} --force builds it again"
        )

    def inside(self, path: str) -> Path:
        """Return a path of the store. Raises StoreError where it leads outside of the store."""
        root = Path(os.path.realpath(self.root))
        if not Path(os.path.realpath(root / path)).is_relative_to(root):
            raise StoreError(f"{path} of {self.name} lies outside of the store", "do not trust this store")
        return self.root / path

    def keep_out(self, place: Path) -> None:
        """Refuse to write into the store. Raises StoreError."""
        if place.resolve().is_relative_to(self.root.resolve()):
            raise StoreError(f"cannot write {place}: it lies in the store and could damage it")

    def beside(self, name: str) -> Path:
        """Return the path of a file beside the tables, with its bytes of now. Raises StoreError as `inside` does."""
        if self.mirror and not (self.is_locked or self._is_settled):
            self.mirror.refresh(name)
        return self.inside(name)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Take files beside the tables as they are here, so that none is replaced while the block adds to it."""
        self._is_settled = True
        try:
            yield
        finally:
            self._is_settled = False

    @contextmanager
    def reading(self) -> Iterator[Manifest]:
        """Yield the manifest. A build that replaces it keeps the files until the block ends.

        Raises StoreError in place of an error inside of the block that comes from a damaged table.
        """
        with self.sharing(fcntl.LOCK_SH):
            manifest = self.manifest()
            try:
                yield manifest
            except StepSearchError:
                raise
            except Exception as error:
                if fault := self.fault(manifest, error):
                    raise fault from error
                raise

    def fault(self, manifest: Manifest, error: Exception) -> StoreError | None:
        """Return what is wrong with the store, or None where the error has another cause."""
        if isinstance(error, OSError) and error.errno and not self._has(error.filename):
            return None  # a system error about another file
        damaged = self.damaged(manifest)
        if damaged:
            return StoreError(f"a table of {self.name} cannot be read: {damaged[0]} is damaged", self._remedy)
        if isinstance(error, LookupError):
            return StoreError(f"the tables of {self.name} do not fit together: {error} is missing", self._remedy)
        if _comes_of_reading(error):
            reason = without_traceback(error).splitlines()[0]
            return StoreError(f"a table of {self.name} cannot be read: {reason}", self._remedy)
        return None

    def damaged(self, manifest: Manifest, *names: str) -> list[str]:
        """Return the tables and folders, of these or of all, whose bytes are not the committed ones."""
        return [
            name
            for entry in manifest.stages.values()
            for name, output in entry.outputs.items()
            if (not names or name in names) and not self._is_as_committed(output)
        ]

    def _is_as_committed(self, output: Output) -> bool:
        if (output.rows is None or self.mirror) and not (self.root / output.path).exists():
            return True  # a store that was pulled comes without its index, and what is at a URL is checked when fetched
        try:
            return digest_of(self.path(output)) == output.digest
        except (StoreError, OSError):
            return False

    def _has(self, filename: object) -> bool:
        """Tell whether a system error is about a file of this store."""
        return isinstance(filename, str) and Path(filename).absolute().is_relative_to(self.root.absolute())

    def has_log(self, name: str) -> bool:
        """Tell whether the log of that name exists. Raises StoreError where it is not a regular file of this store."""
        path = self.beside(log_path(name))
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is not a regular file", "move it away: no row depends on it")
        return path.exists()

    def read_log(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the records of a log, without broken lines, such as one that a crash cut short."""
        if not self.has_log(name):
            return
        with open_regular(self.root / log_path(name)) as file:
            while line := file.readline(_LONGEST):
                with suppress(orjson.JSONDecodeError, ValidationError):
                    record = orjson.loads(line)
                    _RECORDS[name].validate_python(record)
                    yield record

    def marks(self) -> dict[str, Mark]:
        """Return what a reader says now, by question, in the order in which it was said."""
        said: dict[str, Mark] = {}
        for record in self.read_log(MARKS.name):
            said.pop(record["question_id"], None)
            said[record["question_id"]] = Mark.model_construct(**record)  # `read_log` has checked it
        return {question_id: mark for question_id, mark in said.items() if mark.mark or mark.note}

    def marks_at(self) -> tuple[int, ...] | None:
        """Return what differs once something was marked; None where nothing ever was."""
        with suppress(OSError):
            found = self.beside(log_path(MARKS.name)).stat()
            return found.st_ino, found.st_size, found.st_mtime_ns
        return None

    @contextmanager
    def sharing(self, mode: int) -> Iterator[bool]:
        """Lock the folder: readers share it, a sweep needs it exclusively. Yield False where others hold it."""
        if self.mirror:
            self.mirror.prepare()
        handle = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, mode)
                free = True
            except OSError as error:  # some network file systems cannot lock folders, but can be read
                free = not isinstance(error, BlockingIOError)
            yield free
        finally:
            os.close(handle)


def log_path(name: str) -> str:
    """Return where the log of that name is in a store. Marks lie beside the manifest: nobody can make them again."""
    return f"{name}.jsonl" if name == MARKS.name else f"log/{name}.jsonl"


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _comes_of_reading(error: Exception) -> bool:
    """Tell whether an error comes from Arrow, Polars or DuckDB reading a file."""
    loaded = {"polars.exceptions": "PolarsError", "duckdb": "Error"}  # looked up only if imported already
    kinds = [getattr(sys.modules[name], kind) for name, kind in loaded.items() if name in sys.modules]
    return isinstance(error, (pa.ArrowException, OSError, UnicodeDecodeError, *kinds))

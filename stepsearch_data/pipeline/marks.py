"""Marks: what a reader says of trajectories, kept in `marks.jsonl` beside a store's manifest.

Every change is a line at the end of the file, so whatever ends this process, no mark is lost. The last line of a
question counts; `ReadableStore.marks` reads them. A build neither writes nor removes the file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.core.files import read_lines
from stepsearch_data.core.validation import in_words
from stepsearch_data.pipeline.catalog import write_catalog
from stepsearch_data.pipeline.manifest import MOST
from stepsearch_data.pipeline.readable import log_path
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.rows import Mark
from stepsearch_data.schemas.tables import MARKS

LONGEST_NOTE = 10_000  # characters


class Change(BaseModel):
    """What a reader changes of a mark: None leaves a part as it is, an empty text takes it back."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    mark: Literal["good", "bad", ""] | None = None
    note: str | None = Field(default=None, max_length=LONGEST_NOTE)


class _Line(Change):
    """A line of a file of changes; what else it holds is not read."""

    model_config = ConfigDict(extra="ignore")

    question_id: str = Field(min_length=1)


def changed(mark: str | None, note: str | None) -> Change:
    """Return a change of a mark. Raises ConfigError where there is no such mark, or the note is too long."""
    try:
        return Change.model_validate({"mark": mark, "note": note})
    except ValidationError as error:
        raise ConfigError(in_words(error)) from None


def read_changes(path: Path) -> dict[str, Change]:
    """Read JSON Lines of {question_id, mark, note}. Raises ConfigError for a file or a line that cannot be read."""
    found: dict[str, Change] = {}
    number = 0
    try:
        for number, line in enumerate(read_lines(path), start=1):  # noqa: B007 - for the error
            row = _Line.model_validate_json(line)
            found[row.question_id] = Change(mark=row.mark, note=row.note)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}, line {number:,}: {in_words(error)}", "nothing was marked") from None
    return found


def write_marks(store: Store, changes: Mapping[str, Change]) -> dict[str, Mark]:
    """Change the marks of these questions, and return them. May be called by several processes at a time.

    Raises StoreError where the store cannot be written.
    """
    path = store.beside(log_path(MARKS.name))
    fresh = not path.exists()
    try:
        with store.settled(), _alone(path) as handle:
            known, now = store.marks(), datetime.now(UTC).isoformat(timespec="seconds")
            before = {id_: known.get(id_) or Mark(question_id=id_, mark="", note="", marked_at="") for id_ in changes}
            marks = {id_: _changed(before[id_], change, now) for id_, change in changes.items()}
            said = [mark for id_, mark in marks.items() if mark != before[id_]]
            _append(handle, b"".join(orjson.dumps(mark.model_dump()) + b"\n" for mark in said))
    except OSError as error:
        hint = "is the disk full, or the store read-only? marks that are there stay"
        raise StoreError(f"cannot write {path}: {error.strerror or error}", hint) from error
    if fresh:
        with suppress(StoreError, OSError), store.locked():  # a build that is running does it itself
            write_catalog(store)
    if store.mirror:
        store.mirror.changing.send(log_path(MARKS.name))
    return marks


def _changed(before: Mark, change: Change, now: str) -> Mark:
    changed = before.model_copy(update=change.model_dump(exclude_none=True))
    return before if changed == before else changed.model_copy(update={"marked_at": now})


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """Open the file to read its end and to append, for this process alone: others wait. Raises OSError.

    A reader of a store at a URL may have replaced it meanwhile: then it is opened again.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        handle = os.open(path, flags, 0o666)
        try:
            with suppress(OSError):  # some network file systems cannot lock
                fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
                yield handle
                return
        finally:
            os.close(handle)


def _append(handle: int, lines: bytes) -> None:
    """Append lines, all or none, and force them to the disk. Raises OSError."""
    size = os.fstat(handle).st_size
    if not lines:
        return
    if size + len(lines) > MOST:
        raise OSError(f"it would have more than {MOST:,} bytes")
    torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # a crash cut the last line short
    data = b"\n" + lines if torn else lines
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise

"""The files of a store that change, beside its tables: the manifest, logs, marks, settings. At a URL, and in a mirror.

What was last seen of each at the URL, its version and its digest, is kept in the mirror. So both sides can tell what
has changed since. A log is never replaced by one that lacks a record.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import orjson

from stepsearch_data.core.atomic import alone, lock, place, write_whole
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.files import digest_of_file
from stepsearch_data.remote.objects import Changed, Objects

LOGS = ("log/builds.jsonl", "log/llm_calls.jsonl", "log/search_calls.jsonl", "marks.jsonl")
GLANCE = 5.0  # seconds for which a command that is not a build may hold the lock
_TRIES = 10
_STREAMED = 64 << 20  # bytes of a log from which on it is sent in parts, so without a condition


class ChangingFiles:
    """The files that change of the store at a URL, and their copies in a folder. The constructor touches neither."""

    def __init__(self, objects: Objects, root: Path) -> None:
        self._objects, self.root = objects, root

    def take(self, keys: Iterable[str]) -> None:
        """Bring here what others have changed of these files; a log keeps the records that are only here.

        Whoever calls this holds the local lock.
        """
        for key in keys:
            path, known, there = self.root / key, self._known(), self._objects.head(key)
            if _mark(there) == _mark(known.get(key, {}).get("tag")):
                continue
            if there is None:
                if key not in LOGS:
                    path.unlink(missing_ok=True)
                self._know({name: of for name, of in known.items() if name != key})
                continue
            with alone(self.root / ".taking") as folder, _no_writer(path):
                taken = folder / path.name
                tag = self._objects.download(key, taken)
                digest = digest_of_file(taken)
                if key in LOGS and path.exists():
                    _add_what_lacks(path, taken)
                path.parent.mkdir(exist_ok=True)
                place(taken, path)
            self._know({**known, key: {"tag": tag, "digest": digest}})

    def refresh(self, key: str) -> None:
        """Bring a file here that others have changed, unless a build of this machine is at work: then it has it."""
        if _mark(self._objects.head(key)) != _mark(self._known().get(key, {}).get("tag")):
            with open(self.root / ".lock", "a+") as file:
                if lock(file, 0):
                    self.take([key])

    def send(self, key: str) -> None:
        """Send a log that was added to. A build of this machine that is at work does it with its next commit."""
        with open(self.root / ".lock", "a+") as file:
            if lock(file, GLANCE):
                self.take([key])
                try:
                    self.bring([key])
                except Changed:
                    raise StoreError(
                        f"others change {key} of {self._objects.url} all the time",
                        "what was written is kept here, and sent with the next change",
                    ) from None

    def bring(self, keys: Iterable[str]) -> None:
        """Send what has changed of these files. Raises Changed where others have, too, and it is not a log."""
        for key in keys:
            for _ in range(_TRIES if key in LOGS else 1):
                path, known = self.root / key, self._known()
                before = known.get(key, {})
                if not path.exists() or (digest := digest_of_file(path)) == before.get("digest"):
                    break
                try:
                    if path.stat().st_size > _STREAMED:
                        tag = self._objects.upload(path, key)
                    else:
                        tag = self._objects.write(key, path, before.get("tag"))
                except Changed:
                    if key not in LOGS:
                        raise
                    self.take([key])
                else:
                    self._know({**known, key: {"tag": tag, "digest": digest}})
                    break
            else:
                raise Changed

    def _known(self) -> dict[str, dict[str, Any]]:
        """Return the version and the digest of each file that changes, as they were at the URL when last seen."""
        with suppress(FileNotFoundError, orjson.JSONDecodeError):
            known: dict[str, dict[str, Any]] = orjson.loads((self.root / "published.json").read_bytes())
            return known
        return {}

    def _know(self, known: dict[str, dict[str, Any]]) -> None:
        write_whole(self.root / "published.json", orjson.dumps(known))


@contextmanager
def _no_writer(path: Path) -> Iterator[None]:
    """Keep away who adds to a log under its own lock, as `write_marks` does."""
    with open(path, "rb") if path.exists() else nullcontext() as file:
        if file:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _mark(meta: Any) -> str | None:
    """Return what tells versions apart, however the server quotes it."""
    return meta["e_tag"].strip('"') if meta and meta.get("e_tag") else None


def _add_what_lacks(ours: Path, theirs: Path) -> None:
    """Add to a log the lines of another copy of it, from where the two differ."""
    with open(ours, "rb") as mine, open(theirs, "r+b") as merged:
        at = 0
        while (line := mine.readline()) and line == merged.readline():
            at = mine.tell()
        mine.seek(at)
        merged.seek(0, os.SEEK_END)
        shutil.copyfileobj(mine, merged)

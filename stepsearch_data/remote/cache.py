"""Every paid answer, kept by the digest of its whole request: nothing is paid twice.

One SQLite file for all runs and processes (write-ahead log). Answers are committed in groups: a
crash loses at most the last window. Failures are never kept.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random

from stepsearch_data.core.errors import StoreError

WINDOW_SECONDS = 0.2
WINDOW_REPLIES = 64
LOCKED_SECONDS = 5.0  # that another process may hold the lock; a commit takes milliseconds
_LOCKED = "database is locked"
_TABLE = "CREATE TABLE IF NOT EXISTS replies (digest TEXT PRIMARY KEY, reply BLOB NOT NULL) WITHOUT ROWID"


_OPEN: weakref.WeakSet[Cache] = weakref.WeakSet()


def rescue() -> None:
    """Commit what all open caches hold, as far as possible: for the handler of a signal that ends the process."""
    for cache in list(_OPEN):
        cache.try_to_flush()


class Cache:
    """Answers, as bytes, by the digest of their request. Close it to commit the last window."""

    tables: tuple[str, ...] = (_TABLE,)

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=LOCKED_SECONDS, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._fault(error, "open") from error
        try:
            Retrying(
                retry=retry_if_exception_message(match=_LOCKED),  # where several open a new file at once
                stop=stop_after_delay(LOCKED_SECONDS),
                wait=wait_random(0.01, 0.1),
                reraise=True,
            )(self._db.execute, "PRAGMA journal_mode = WAL")
            for statement in ("PRAGMA synchronous = NORMAL", *self.tables):
                self._db.execute(statement)
        except sqlite3.Error as error:
            self._db.close()
            raise self._fault(error, "open") from error
        self._pending: dict[str, bytes] = {}
        self._since = 0.0
        _OPEN.add(self)

    def load(self, digest: str) -> bytes | None:
        """Return the answer that was kept before, if any."""
        if digest in self._pending:
            return self._pending[digest]
        rows = self._read("SELECT reply FROM replies WHERE digest = ?", digest)
        return bytes(rows[0][0]) if rows else None

    def keep(self, digest: str, answer: bytes) -> None:
        """Keep an answer; committed at the latest when the window is full or over."""
        now = time.monotonic()
        if not self._pending:
            self._since = now
        self._pending[digest] = answer
        if len(self._pending) >= WINDOW_REPLIES or now - self._since >= WINDOW_SECONDS:
            self.flush()
        elif len(self._pending) == 1:  # where answers are rare, none may wait for the next one
            with suppress(RuntimeError):  # no event loop runs
                asyncio.get_running_loop().call_later(WINDOW_SECONDS, self.try_to_flush)

    def flush(self) -> None:
        """Commit what is pending. Raises StoreError when the disk is full."""
        if self._pending:
            self._write("INSERT OR IGNORE INTO replies VALUES (?, ?)", self._pending.items())
            self._pending.clear()

    def try_to_flush(self) -> None:
        """Commit what is pending, unless that fails: the next reply meets the same error, and reports it."""
        with suppress(StoreError):
            self.flush()

    def _read(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error, "read") from error

    def _write(self, statement: str, rows: Iterable[tuple[str | bytes, ...]]) -> None:
        try:
            with self._db:  # rolls back what a failure leaves half done
                if not self._db.in_transaction:  # `rescue` may come in the middle of a write, and commits it too
                    self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(statement, rows)
            self._be_patient(LOCKED_SECONDS)
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # it is closed
                self._be_patient(0)  # later writes need not wait as long again, nor does `close`
            raise self._fault(error, "write") from error

    def _be_patient(self, seconds: float) -> None:
        self._db.execute(f"PRAGMA busy_timeout = {1000 * seconds:.0f}")

    def _fault(self, error: Exception, doing: str) -> StoreError:
        if str(error) == _LOCKED:
            return StoreError(
                f"another process keeps the replay cache {self._path} locked",
                "end it, or choose another file: --set llm.replay=PATH",
            )
        advice = "choose another: --set llm.replay=PATH"
        if doing == "write":
            advice = f"free some space, or {advice}; then run the same command"
        return StoreError(f"cannot {doing} the replay cache {self._path}: {error}", advice)

    def close(self) -> None:
        """Commit and close."""
        try:
            self.flush()
        finally:
            self._db.close()

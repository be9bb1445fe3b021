"""Every paid reply, kept by the digest of its whole request: nothing is paid twice.

One SQLite file for all runs and processes (write-ahead log). Replies are committed in groups: a
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

import orjson
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random

from stepsearch_data.pipeline.errors import StoreError
from stepsearch_data.pipeline.llm.chat import Reply, Usage

WINDOW_SECONDS = 0.2
WINDOW_REPLIES = 64
_TABLE = "CREATE TABLE IF NOT EXISTS replies (digest TEXT PRIMARY KEY, reply BLOB NOT NULL) WITHOUT ROWID"
_BATCHED = "CREATE TABLE IF NOT EXISTS batched (digest TEXT PRIMARY KEY, model TEXT NOT NULL, batch TEXT NOT NULL)"


_OPEN: weakref.WeakSet[Replay] = weakref.WeakSet()


def rescue() -> None:
    """Commit what all open caches hold, as far as that goes: for the handler of a signal that ends the process."""
    for replay in list(_OPEN):
        with suppress(StoreError):
            replay.flush()


class Replay:
    """Replies by request digest. Close it to commit the last window."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            for attempt in Retrying(
                retry=retry_if_exception_message(match="database is locked"),  # where several open a new file at once
                stop=stop_after_delay(60),
                wait=wait_random(0.01, 0.1),
                reraise=True,
            ):
                with attempt:
                    self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(_TABLE)
            self._db.execute(_BATCHED)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"cannot open the replay cache {path}: {error}", "choose another: --set llm.replay=PATH"
            ) from error
        self._pending: dict[str, bytes] = {}
        self._since = 0.0
        _OPEN.add(self)

    def get(self, digest: str) -> Reply | None:
        """The reply that was paid for before, marked as cached."""
        if digest in self._pending:
            return _decode(self._pending[digest])
        row = self._db.execute("SELECT reply FROM replies WHERE digest = ?", (digest,)).fetchone()
        return _decode(row[0]) if row else None

    def put(self, digest: str, reply: Reply) -> None:
        """Keep a reply; committed at the latest when the window is full or over."""
        now = time.monotonic()
        if not self._pending:
            self._since = now
        usage = [reply.usage.prompt_tokens, reply.usage.completion_tokens]
        self._pending[digest] = orjson.dumps([reply.text, reply.finish_reason, *usage])
        if len(self._pending) >= WINDOW_REPLIES or now - self._since >= WINDOW_SECONDS:
            self.flush()
        elif len(self._pending) == 1:  # where replies are rare, none may wait for the next one
            with suppress(RuntimeError):  # no event loop runs
                asyncio.get_running_loop().call_later(WINDOW_SECONDS, self._flush_late)

    def flush(self) -> None:
        """Commit what is pending. Raises StoreError when the disk is full."""
        if self._pending:
            self._write("INSERT OR IGNORE INTO replies VALUES (?, ?)", self._pending.items())
            self._pending.clear()

    def _flush_late(self) -> None:
        with suppress(StoreError):  # the next reply meets the same trouble, and says so
            self.flush()

    def batch_of(self, digest: str) -> str | None:
        """The batch that was sent with this request and whose replies have not been fetched yet."""
        row = self._db.execute("SELECT batch FROM batched WHERE digest = ?", (digest,)).fetchone()
        return str(row[0]) if row else None

    def batch(self, batch: str) -> dict[str, str]:
        """The models of a batch's requests, by digest."""
        return dict(self._db.execute("SELECT digest, model FROM batched WHERE batch = ?", (batch,)))

    def remember(self, batch: str, models: dict[str, str]) -> None:
        """Remember what was sent as a batch, until it is forgotten; commits what is pending, as a batch takes long."""
        self.flush()
        rows = [(digest, model, batch) for digest, model in models.items()]
        self._write("INSERT OR REPLACE INTO batched VALUES (?, ?, ?)", rows)

    def forget(self, batch: str) -> None:
        """Forget a batch whose replies are all kept."""
        self.flush()
        self._write("DELETE FROM batched WHERE batch = ?", [(batch,)])

    def _write(self, statement: str, rows: Iterable[tuple[str | bytes, ...]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot write the replay cache: {error}", "free some space, then run the same command"
            ) from error

    def close(self) -> None:
        """Commit and close."""
        self.flush()
        self._db.close()


def _decode(data: bytes) -> Reply:
    text, finish_reason, prompt, completion = orjson.loads(data)
    return Reply(text, finish_reason, Usage(prompt, completion), attempts=0, cached=True)

"""The lock of a store at a URL: an object that its owner writes again and again, and that so tells who is alive.

It only saves work. What keeps two builds apart is the manifest, which is replaced where it is the one that was read.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import orjson

from stepsearch_data.core.errors import StoreError
from stepsearch_data.remote.objects import Changed, Found, Objects, Tag

KEY = ".lock"
SECONDS = 60.0  # after which a lock that is not renewed ends
RENEW = 15.0  # seconds between two renewals
_MOST = 10_000


class Lease:
    """A lock that is held by a folder of a machine, until `end` or the end of the process."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self._objects = objects
        self._me = {"host": socket.gethostname(), "folder": folder}
        self._renewals = 0
        self._renewed = 0.0
        self._tag: Tag = {}
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def take(self) -> None:
        """Take the lock. Raises StoreError where another build has it, or the server knows no conditions."""
        found = self._objects.read(KEY, _MOST)
        if found and (owner := _owner(found)) and {name: owner.get(name) for name in self._me} != self._me:
            self._wait_for(found, owner)
        try:
            self._write(found.tag if found else None)
            stale = self._tag
            self._write(stale)
        except Changed:
            raise self._busy(_owner(self._objects.read(KEY, _MOST)), SECONDS) from None
        try:
            self._objects.write(KEY, b"{}", stale)
        except Changed:
            self._thread.start()
            return
        raise StoreError(
            f"the server of {self._objects.url} ignores conditions of writes: two builds could undo each other",
            "use one that has If-Match (S3, MinIO, R2, Google, Azure), or a local --store",
        )

    def check(self) -> None:
        """Raise StoreError where the lock may be another's by now."""
        if self._lost or time.monotonic() - self._renewed > SECONDS:
            raise StoreError(
                f"the lock of {self._objects.url} could not be renewed, and another build may have it",
                "the same command goes on from what is committed",
            )

    def end(self) -> None:
        """Give the lock back, if it is ours."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            self._objects.write(KEY, b"{}", self._tag)

    def _wait_for(self, found: Found, owner: dict[str, Any]) -> None:
        """Raise StoreError unless the owner has been silent too long, by this clock, and is silent while we look."""
        left = SECONDS - (time.time() - found.modified.timestamp())
        if left <= 0:
            time.sleep(2 * RENEW)
            again = self._objects.read(KEY, _MOST)
            if again is None or again.tag == found.tag:
                return
            left = SECONDS
        raise self._busy(owner, left)

    def _busy(self, owner: dict[str, Any], left: float) -> StoreError:
        who = f"process {owner.get('process')} on {owner.get('host')}" if "process" in owner else "process unknown"
        return StoreError(
            f"another build is writing {self._objects.url} ({who})",
            f"wait for it, or give this build a --store of its own; if it was killed, its lock ends in {left:.0f} s",
        )

    def _write(self, tag: Tag | None) -> None:
        self._renewals += 1
        text = orjson.dumps({**self._me, "process": os.getpid(), "renewals": self._renewals, "of": id(self)})
        self._tag = self._objects.write(KEY, text, tag)
        self._renewed = time.monotonic()

    def _keep(self) -> None:
        while not self._ended.wait(RENEW):
            try:
                self._write(self._tag)
            except Changed:
                self._lost = True
                return
            except StoreError:  # tried again until `check` finds it too old
                continue


def _owner(found: Found | None) -> dict[str, Any]:
    """Return who has the lock, or nothing where nobody has."""
    try:
        owner = orjson.loads((found and found.data) or b"{}")
    except orjson.JSONDecodeError:
        return {"host": "unknown"}
    return owner if isinstance(owner, dict) else {"host": "unknown"}

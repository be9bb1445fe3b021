"""Files and folders that appear under their names only when they are whole and on the disk.

Each is written beside its place, forced to the disk, and renamed; then the folder that holds it is forced to the disk.
A symlink in the place is replaced itself, never followed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from stepsearch_data.core.errors import StepSearchError


@contextmanager
def alone(folder: Path, busy: StepSearchError | None = None) -> Iterator[Path]:
    """Lock a folder for this process: make it where there is none, and remove what a killed process left in it.

    Yields the folder. Waits where another process has it, or raises `busy`; OSError.
    """
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)  # or another folder would be emptied
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            assert busy
            raise busy from None
        for left in folder.iterdir():
            remove(left)
        yield folder
    finally:
        os.close(handle)


def lock(file: IO[Any], seconds: float) -> bool:
    """Lock a file for this process, if it is free within this time. Closing it gives the lock back."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        else:
            return True


def part_of(path: Path) -> Path:
    """Return the path of a file or folder until it is whole."""
    return path.with_name(f".{path.name}.part")


@contextmanager
def writing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a free path to write to; it is renamed to `path` when the block ends well, and removed otherwise.

    `shared`: several processes may write this file at the same time. Raises OSError.
    """
    part = part_of(path).with_suffix(f".{os.getpid()}") if shared else part_of(path)
    remove(part)
    try:
        yield part
        place(part, path)
    finally:
        with suppress(OSError):
            remove(part)


def write_whole(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Write a file, as `writing` does. Raises OSError."""
    with writing(path, shared=shared) as part, open(part, "xb") as file:
        file.write(data)


def place(made: Path, target: Path) -> None:
    """Force a file or folder to the disk and rename it to `target`, in the same file system.

    A folder cannot replace anything in one step: what is there is renamed first, and comes back where that fails.
    Raises OSError.
    """
    sync(made)
    if made.is_dir() and os.path.lexists(target):
        _swap(made, target)
    else:
        made.rename(target)
    _sync_one(target.parent)


def _swap(made: Path, target: Path) -> None:
    earlier = target.with_name(f".{target.name}.old")
    remove(earlier)
    target.rename(earlier)
    try:
        made.rename(target)
    except OSError:
        earlier.rename(target)
        raise
    remove(earlier)


def sync(path: Path) -> None:
    """Force a file, or a folder and all that it holds, to the disk. Raises OSError."""
    if path.is_dir():
        for entry in path.rglob("*"):
            _sync_one(entry)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""Beside the place of what is being written: a folder for one process at a time, a file until it is whole."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepsearch_data.core.errors import StepSearchError


@contextmanager
def alone(folder: Path, busy: StepSearchError) -> Iterator[None]:
    """Have a folder to oneself, made where there is none, and emptied of what a killed process left in it.

    Raises `busy` where another process has it; OSError.
    """
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        os.close(handle)


def partial(path: Path) -> Path:
    """Where a file is until it is whole; behind a symlink, beside the link's target."""
    target = Path(os.path.realpath(path))
    return target.with_name(f".{target.name}.part")

"""A folder that appears whole, or not at all: written beside its place, under a lock, and moved there last."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stepsearch_data.core.errors import PublishError
from stepsearch_data.core.scratch import alone
from stepsearch_data.release.record import OWN, read_record


@contextmanager
def placing(folder: Path) -> Iterator[Path]:
    """An empty folder to write a release into; it takes the place of `folder` when the block ends well.

    An earlier release there is replaced. Raises PublishError where the place is somebody else's, or another
    process writes there; OSError.
    """
    refuse_foreign(folder)
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.new")
    busy = PublishError(f"another process is writing {folder}", "wait for it, or choose another --output")
    with alone(staging, busy):
        try:
            yield staging
            refuse_foreign(folder)
            _swap(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _swap(staging: Path, target: Path) -> None:
    """Put the new folder where the old one is, which comes back where that fails."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        with suppress(FileNotFoundError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def refuse_foreign(folder: Path) -> None:
    """Raises PublishError where a folder holds anything that is not a release's."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PublishError(f"cannot write a release to {folder}: it is a file", "choose another --output")
    there = sorted(path.name for path in folder.iterdir())
    if there:
        foreign = [name for name in there if name not in OWN]
        if foreign or "release.json" not in there:
            named = ", ".join((foreign or there)[:3])
            raise PublishError(f"{folder} is not empty, and {named} is no release's", "choose another --output")
        read_record(folder)

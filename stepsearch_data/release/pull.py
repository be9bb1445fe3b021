"""Turn a release, on the Hub or in a folder, back into the store that it was made of."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson

from stepsearch_data.core.atomic import place, sync
from stepsearch_data.core.errors import PublishError
from stepsearch_data.core.files import digest_of
from stepsearch_data.core.progress import Meter, Reporter
from stepsearch_data.pipeline.catalog import write_catalog
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.release.hub import Hub
from stepsearch_data.release.record import NAME, STORE
from stepsearch_data.release.verify import fetch_record, look, verify_release

_SHOWN = 3  # files that a message names
_LEFT_OVERS = {".lock", ".staging", "stages", "catalog.sql", "retries.json", "marks.jsonl", "log"}
"""What a killed build or pull may leave where there is no manifest yet."""


@dataclass(frozen=True)
class Restored:
    """A store that was restored; `fresh` where it was not there before."""

    store: Store
    digest: str
    fresh: bool


def pull(hub: Hub, revision: str | None, root: Path, reporter: Reporter) -> Restored:
    """Make `root` the store of a release, as its builder had it.

    What is fetched stays beside `root` until all of it is there; the same command goes on. Raises PublishError where
    there is no release, it is damaged, or `root` holds something else; StoreError, OSError.
    """
    sha, tree = look(hub, revision)
    with tempfile.TemporaryDirectory() as temporary:
        _check_place(root, fetch_record(hub, sha, Path(temporary)).store)
    place = root.resolve()
    folder = place.with_name(f"{_waiting(place)}{sha[:12]}")
    with reporter.stage("pull") as meter:
        paths = [NAME, *(path for path in tree if path.startswith(f"{STORE}/"))]
        for path in meter.track(paths, len(paths)):
            meter.note(partial(str, path))
            hub.download(path, sha, folder)
    try:
        with reporter.stage("verify") as meter:
            restored = restore(folder, root, meter)
    except PublishError:
        shutil.rmtree(folder, ignore_errors=True)  # damaged files are to be fetched again
        raise
    for left in place.parent.iterdir():
        if left.name.startswith(_waiting(place)):
            shutil.rmtree(left, ignore_errors=True)
    return restored


def _waiting(place: Path) -> str:
    """Return the prefix of temporary folders that hold a store's files beside their place."""
    return f".{place.name}.pull-"


def restore(folder: Path, root: Path, meter: Meter) -> Restored:
    """Make `root` the store that the release in `folder` was written from.

    Every digest of what it takes is checked first, and the manifest comes last: until then there is no store, and the
    same command goes on. A store that is there already must be the same one; what it lacks is mended.
    Raises PublishError for a damaged release and for another store or foreign files in `root`, StoreError, OSError.
    """
    report = verify_release(folder, meter, (STORE,))
    if report.faults:
        named = ", ".join(f"{fault.path} ({fault.state})" for fault in report.faults[:_SHOWN])
        more = f" and {len(report.faults) - _SHOWN} more" if len(report.faults) > _SHOWN else ""
        raise PublishError(f"the {report.kind} {report.where} is damaged: {named}{more}", "get it again")
    source, target = Store(folder / STORE), Store(root)
    _check_place(root, source.digest())
    with target.locked():
        _check_place(root, source.digest())
        fresh = not target.manifest().stages
        _copy_tables(source, target)
        if fresh:
            _write_retries(source.manifest(), target)
        target.write_text("manifest.json", (source.root / "manifest.json").read_text(encoding="utf-8"))
        write_catalog(target)
    return Restored(target, target.digest(), fresh)


def _check_place(root: Path, digest: str) -> None:
    """Raise PublishError where `root` is neither free nor the store of this digest, StoreError."""
    if not root.exists():
        return
    if not root.is_dir():
        raise PublishError(f"{root} is a file", "choose another --store")
    if Store(root).manifest().stages and Store(root).digest() != digest:
        raise PublishError(f"{root} holds another store", "choose another --store")
    foreign = sorted(path.name for path in root.iterdir() if path.name not in _LEFT_OVERS)
    if foreign and "manifest.json" not in foreign:
        raise PublishError(f"{root} holds other files, such as {foreign[0]}", "choose another --store")


def _copy_tables(source: Store, target: Store) -> None:
    """Bring every table to its place, those left alone that are there as they should be."""
    outputs = [output for entry in source.manifest().stages.values() for output in entry.outputs.values()]
    target.sweep()
    with target.staging() as staging:
        for output in outputs:
            path = target.inside(output.path)
            if output.rows is None or (path.is_file() and digest_of(path) == output.digest):
                continue
            copied = staging / path.name
            shutil.copyfile(source.path(output), copied)
            path.parent.mkdir(parents=True, exist_ok=True)
            place(copied, path)
        if (target.root / "stages").exists():
            sync(target.root / "stages")


def _write_retries(manifest: Manifest, target: Store) -> None:
    """Write which questions were tried again.

    They are a part of their stages' fingerprints, without which the stages would run again.
    """
    made = {name: entry.fingerprint for name, entry in manifest.stages.items()}
    retries = {name: fingerprint["retries"] for name, fingerprint in made.items() if fingerprint.get("retries")}
    if retries:
        text = orjson.dumps(retries, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        target.write_text("retries.json", text)

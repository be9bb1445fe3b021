"""From the Hub: a release's store, and whether a release there is what it says."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from functools import partial
from pathlib import Path

from stepsearch_data.core.errors import PublishError
from stepsearch_data.core.progress import Meter, Reporter
from stepsearch_data.release.hub import Hub, RemoteFile
from stepsearch_data.release.record import NAME, STORE, Record, read_record
from stepsearch_data.release.restore import Restored, check_place, restore
from stepsearch_data.release.verify import Report, compare, extra


def pull(hub: Hub, revision: str | None, root: Path, reporter: Reporter) -> Restored:
    """Make `root` the store of a release, as its builder had it.

    What is fetched waits beside `root` until all of it is there; the same command goes on. Raises PublishError where
    there is no release, it is damaged, or `root` holds something else; StoreError, OSError.
    """
    sha, tree = _look(hub, revision)
    with tempfile.TemporaryDirectory() as temporary:
        check_place(root, _record(hub, sha, Path(temporary)).store)
    place = root.resolve()
    folder = place.with_name(f"{_waiting(place)}{sha[:12]}")
    with reporter.stage("pull") as meter:
        _fetch(hub, sha, [NAME, *(path for path in tree if path.startswith(f"{STORE}/"))], folder, meter)
    try:
        with reporter.stage("verify") as meter:
            restored = restore(folder, root, meter)
    except PublishError:
        shutil.rmtree(folder, ignore_errors=True)  # what is damaged is to be fetched anew
        raise
    for left in place.parent.iterdir():
        if left.name.startswith(_waiting(place)):
            shutil.rmtree(left, ignore_errors=True)
    return restored


def verify_remote(hub: Hub, revision: str | None, meter: Meter) -> Report:
    """Compare the files of a release on the Hub with its record; large ones by the digest that the Hub stores them by.

    Raises PublishError where there is no release.
    """
    sha, tree = _look(hub, revision)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        record = _record(hub, sha, folder)
        paths = [*(path for path in record.files if path in tree), *extra(record, tree)]
        meter.expect(len(paths))
        found = {}
        for path in paths:
            found[path] = _digest(hub, sha, path, tree[path], folder)
            meter.advance()
        digest = _digest(hub, sha, NAME, tree[NAME], folder)
    recorded = {path: file.sha256 for path, file in record.files.items()}
    return compare("release", f"{hub.repo}@{revision or sha}", digest, recorded, found)


def _waiting(place: Path) -> str:
    """How the names of folders begin in which a store's files wait."""
    return f".{place.name}.pull-"


def _look(hub: Hub, revision: str | None) -> tuple[str, dict[str, RemoteFile]]:
    """The commit that a revision names, and its files."""
    head = hub.find(revision)
    if head is None:
        raise PublishError(
            f"there is no dataset {hub.repo} that you may see",
            "check the name; a private one needs HF_TOKEN, of somebody who may read it",
        )
    tree = hub.tree(head.sha)
    if NAME not in tree:
        raise PublishError(
            f"{hub.repo} holds no release of stepsearch-data" + (f" at {revision}" if revision else ""),
            f"see what it holds: {hub.url}",
        )
    return head.sha, tree


def _record(hub: Hub, sha: str, folder: Path) -> Record:
    hub.download(NAME, sha, folder)
    return read_record(folder)


def _fetch(hub: Hub, sha: str, paths: list[str], folder: Path, meter: Meter) -> None:
    meter.expect(len(paths))
    for path in paths:
        meter.note(partial(str, path))
        hub.download(path, sha, folder)
        meter.advance()


def _digest(hub: Hub, sha: str, path: str, file: RemoteFile, folder: Path) -> str:
    """SHA-256 of a file; the small ones that git keeps itself are fetched."""
    return file.sha256 or hashlib.sha256(hub.download(path, sha, folder).read_bytes()).hexdigest()

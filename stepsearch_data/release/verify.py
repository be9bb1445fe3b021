"""Check whether a store or a release is still what its manifest says, file by file."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from stepsearch_data.core.errors import PublishError, StoreError
from stepsearch_data.core.files import digest_of
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.record import DATA, NAME, OWN, STORE, Record, read_record
from stepsearch_data.remote.objects import address

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

    from stepsearch_data.release.hub import Hub

MANIFEST = f"{STORE}/manifest.json"
_NOT_OURS = "the release was not written by this program"


class State(StrEnum):
    """How a file compares with its record. A build makes again what is `absent`: an index."""

    ok = "ok"
    changed = "changed"
    missing = "missing"
    unexpected = "unexpected"
    absent = "absent"


@dataclass(frozen=True)
class Finding:
    """A file, or a folder that counts as one, and its state."""

    path: str
    state: State


@dataclass(frozen=True)
class Report:
    """What was found of a `kind`, store or release. `digest` is the SHA-256 of the file that names all others."""

    kind: str
    where: str
    digest: str
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> list[Finding]:
        """Return all that is changed, missing or unexpected."""
        return [finding for finding in self.findings if finding.state not in (State.ok, State.absent)]


def verify(path: Path, meter: Meter) -> Report:
    """Recompute every digest of a release's folder or of a store.

    Raises PublishError where there is neither, or where the release contradicts itself, StoreError, OSError.
    """
    if (path / NAME).is_file():
        return verify_release(path, meter)
    if address(path) or (path / "manifest.json").is_file():
        return _verify_store(Store.open(path), meter)
    raise PublishError(
        f"there is neither a store nor a release at {path}", "name a folder with a manifest.json or a release.json"
    )


def verify_release(folder: Path, meter: Meter, rooms: Collection[str] = OWN) -> Report:
    """Recompute every digest of a release's folder, or of some of its `rooms`."""
    record = read_record(folder)
    recorded = {path: digest for path, digest in record.digests.items() if path.split("/")[0] in rooms}
    paths = [*recorded, *_extra(record, _files(folder, {DATA, STORE}.intersection(rooms)))]
    found = _digests(lambda path: digest_of(folder / path), paths, meter)
    report = _compare("release", str(folder), digest_of(folder / NAME), recorded, found)
    if not report.faults:
        _check_lineage(record, Store(folder / STORE))
    return report


def _verify_store(store: Store, meter: Meter) -> Report:
    root, mirror = store.root, store.mirror
    with store.reading() as manifest:
        folders = [entry.folder for entry in manifest.stages.values()]
        outputs = [output for entry in manifest.stages.values() for output in entry.outputs.values()]
        for path in (*folders, *(output.path for output in outputs)):
            store.inside(path)
        absent = [output.path for output in outputs if output.rows is None and not store.has(output)]
        recorded = {output.path: output.digest for output in outputs if output.path not in absent}
        named = {output.path: output for output in outputs}
        if mirror:
            there = mirror.entries(folders)
        else:
            found = (p for folder in folders for p in sorted((root / folder).glob("*")))
            there = [p.relative_to(root).as_posix() for p in found]

        def read(path: str) -> str:
            if mirror:
                return mirror.digest(named[path]) if path in named else ""
            return digest_of(root / path)

        paths = [*recorded, *(path for path in there if path not in recorded)]
        return _compare("store", store.name, store.digest(), recorded, _digests(read, paths, meter), absent)


def verify_remote(hub: Hub, revision: str | None, meter: Meter) -> Report:
    """Compare the files of a release on the Hub with its record.

    Large ones are compared by the digest that the Hub stores them by. Raises PublishError where there is no release.
    """
    sha, tree = look(hub, revision)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        record = fetch_record(hub, sha, folder)
        paths = [*(path for path in record.files if path in tree), *_extra(record, tree)]
        found = {path: _digest(hub, sha, path, tree[path], folder) for path in meter.track(paths, len(paths))}
        digest = _digest(hub, sha, NAME, tree[NAME], folder)
    return _compare("release", f"{hub.repo}@{revision or sha}", digest, record.digests, found)


def look(hub: Hub, revision: str | None) -> tuple[str, dict[str, RepoFile]]:
    """Return the commit that a revision names, and its files."""
    head = hub.find(revision)
    if head is None:
        raise PublishError(
            f"there is no dataset {hub.repo} that you may see",
            "check the name; a private one needs the HF_TOKEN of a user who may read it",
        )
    tree = hub.tree(head.sha)
    if NAME not in tree:
        raise PublishError(
            f"{hub.repo} holds no release of stepsearch-data" + (f" at {revision}" if revision else ""),
            f"see what it holds: {hub.url}",
        )
    return head.sha, tree


def fetch_record(hub: Hub, sha: str, folder: Path) -> Record:
    """Fetch the record of a release on the Hub into a folder, and read it. Raises PublishError."""
    hub.download(NAME, sha, folder)
    return read_record(folder)


def _compare(
    kind: str,
    where: str,
    digest: str,
    recorded: Mapping[str, str],
    found: Mapping[str, str],
    absent: Iterable[str] = (),
) -> Report:
    """Compare digests by path: those that were recorded with those that are there."""
    states = {path: _state(recorded.get(path), found.get(path)) for path in sorted({*recorded, *found})}
    states.update(dict.fromkeys(absent, State.absent))
    return Report(kind, where, digest, tuple(Finding(path, state) for path, state in states.items()))


def _state(recorded: str | None, found: str | None) -> State:
    if recorded is None:
        return State.unexpected
    if found is None:
        return State.missing
    return State.ok if found == recorded else State.changed


def _extra(record: Record, paths: Iterable[str]) -> list[str]:
    """List those of these paths that a release does not name, in the folders that are its alone."""
    return [path for path in paths if path not in record.files and path.split("/")[0] in (DATA, STORE)]


def _check_lineage(record: Record, store: Store) -> None:
    """Raise PublishError where a record and its store disagree on the tables, or no build wrote these."""
    recorded = record.digests
    try:
        manifest = store.manifest()
        outputs = [output for entry in manifest.stages.values() for output in entry.outputs.values()]
        agree = recorded.get(MANIFEST) == record.store and all(
            recorded.get(f"{STORE}/{output.path}") == output.digest for output in outputs if output.rows is not None
        )
        if agree:
            store.check(manifest)
    except StoreError as error:
        raise PublishError(f"the release holds no whole store: {error.message}", _NOT_OURS) from error
    if not agree:
        raise PublishError(f"{NAME} and {MANIFEST} contradict each other", _NOT_OURS)


def _files(folder: Path, rooms: Iterable[str]) -> list[str]:
    found = (path for room in rooms for path in sorted((folder / room).rglob("*")) if path.is_file())
    return [path.relative_to(folder).as_posix() for path in found]


def _digests(read: Callable[[str], str], paths: list[str], meter: Meter) -> dict[str, str]:
    """Return what `read` says are the digests of what is there, by path."""
    found = {}
    for path in meter.track(paths, len(paths)):
        try:
            found[path] = read(path)
        except FileNotFoundError:
            pass
        except OSError:  # a FIFO, or what may not be read
            found[path] = ""
    return found


def _digest(hub: Hub, sha: str, path: str, file: RepoFile, folder: Path) -> str:
    """Return the SHA-256 of a file; the small ones that git keeps itself are fetched."""
    return file.lfs.sha256 if file.lfs else hashlib.sha256(hub.download(path, sha, folder).read_bytes()).hexdigest()

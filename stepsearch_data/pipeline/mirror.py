"""The local folder of a store at a URL, which is a copy of what lies there, as far as it was needed.

All work is done on the local folder, as with any store. A table is fetched when it is first read, and checked by its
digest. A commit sends its files, then the logs, and last the manifest, on the condition that it is the one that was
read. What a killed build has committed here and not sent is sent by the next one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path, PosixPath, PurePath
from typing import Any
from urllib.parse import quote, unquote

from stepsearch_data.core.atomic import alone, place
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.files import cache_folder, digest_of
from stepsearch_data.pipeline.changing_files import LOGS, ChangingFiles
from stepsearch_data.pipeline.lease import KEY, Lease
from stepsearch_data.pipeline.manifest import MOST, Manifest, Output, parse_manifest
from stepsearch_data.remote.objects import Changed, Objects, address

MANIFEST = "manifest.json"
BESIDE = (*LOGS, "log/settings.json", "retries.json", "catalog.sql")
"""Files that change, beside the manifest."""

KEPT = timedelta(hours=1)  # for readers, of what is replaced
_LONGEST = 255  # bytes of a folder's name
_ROOM = ("stepsearch-data", "stores")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/")
_FOLDER = re.compile(r"(stages/.+-[0-9a-f]{12}(?:\.\d+)?)/.+")


def mirror_of(location: Path) -> Mirror | None:
    """Return the mirror of a URL, or that which a folder is; None for other folders."""
    if url := address(location):
        name = quote(url, safe="")
        if len(name) > _LONGEST:
            raise StoreError(f"{url} is too long for the URL of a store", f"{_LONGEST} characters at most")
        return Mirror(url, cache_folder().absolute() / _ROOM[1] / name)
    if _SCHEME.match(str(location)):
        raise StoreError(
            f"{str(location).partition(':')[0]}:// is not a place of stores",
            "known: s3://, gs://, az://; a release on the Hub becomes a store by stepsearch-data pull USER/NAME",
        )
    url = address(unquote(location.name)) if location.parts[-3:-1] == _ROOM else ""
    return Mirror(url, location) if url else None


class CommittedPath(PosixPath):
    """A file or folder of a mirror. Where it is unpickled on another machine, that fetches it to the same path."""

    def __reduce__(self) -> tuple[Callable[[str], Path], tuple[str]]:
        return _arrived, (str(self),)


def _arrived(name: str) -> Path:
    path = Path(name)
    for root in path.parents if not path.exists() else ():
        if mirror := mirror_of(root):
            relative = path.relative_to(root).as_posix()
            for output in (output for output in _outputs(mirror.manifest()) if output.path == relative):
                mirror.fetch(output)
    return path


class Mirror:
    """A store at a URL, and the local folder of it. The constructor touches neither."""

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url, root
        self._objects = Objects(url)
        self.changing = ChangingFiles(self._objects, root)
        self._lease: Lease | None = None
        self._sent: set[Output] = set()  # of the published manifest, and what was sent since

    # --- what lies at the URL

    def published(self) -> bytes:
        """Return the manifest. Raises FileNotFoundError where there is none."""
        found = self._objects.read(MANIFEST, MOST)
        if found is None:
            raise FileNotFoundError(self.url)
        return found.data

    def manifest(self) -> Manifest:
        """Return the published manifest, which may be empty. Raises StoreError."""
        with suppress(FileNotFoundError):
            return parse_manifest(self.published(), f"{self.url}/{MANIFEST}")
        return Manifest()

    def files(self, output: Output) -> dict[str, int]:
        """Return the bytes of the objects of an output, by key."""
        return {key: size for key, size in self._sizes.items() if f"{key}/".startswith(f"{output.path}/")}

    def is_whole(self, output: Output) -> bool:
        """Tell whether an output is there in its committed size."""
        found = self.files(output)
        return bool(found) and sum(found.values()) == output.bytes

    def digest(self, output: Output) -> str:
        """Return the digest of an output, read from the URL; "" for one of another size. Raises FileNotFoundError."""
        if not self.is_whole(output):
            return "" if self.files(output) else self._digest(output.path)
        if output.rows is not None:
            return self._digest(output.path)
        names = sorted(PurePath(key).relative_to(output.path) for key in self.files(output))
        lines = [f"{name.as_posix()} {self._digest(f'{output.path}/{name.as_posix()}')}\n" for name in names]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def entries(self, folders: Iterable[str]) -> list[str]:
        """Return the paths of what lies in these folders, of a folder in them only its own path."""
        parts = (PurePath(key).parts for key in self._sizes)
        return sorted({"/".join(of[:3]) for of in parts if "/".join(of[:2]) in set(folders)})

    @cached_property
    def _listed(self) -> dict[str, dict[str, Any]]:
        return self._objects.listed("stages")

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {key: meta["size"] for key, meta in self._listed.items()}

    def _digest(self, key: str) -> str:
        digest = hashlib.sha256()
        for chunk in self._objects.chunks(key):
            digest.update(chunk)
        return digest.hexdigest()

    # --- fetching

    def fetch(self, output: Output) -> None:
        """Fetch a committed file or folder, unless it is here. Raises StoreError where it is not the committed one."""
        if self._is_here(output):
            return
        self.prepare()
        with self._writing(), alone(self.root / ".fetching") as folder:
            if self._is_here(output):  # another process has fetched it
                return
            part = folder / PurePath(output.path).name
            keys = [output.path] if output.rows is not None else list(self._objects.listed(output.path))
            try:
                for key in keys:
                    self._download(key, part / PurePath(key).relative_to(output.path), output)
            except FileNotFoundError as error:
                raise StoreError(
                    f"{self.url}/{output.path} is missing", "if a build has replaced it meanwhile, run this again"
                ) from error
            if not part.exists():
                return  # a store without its index; `ReadableStore.path` says so
            if digest_of(part) != output.digest:
                raise self._damage(output.path, "its bytes are not the committed ones")
            target = self.root / output.path
            target.parent.mkdir(parents=True, exist_ok=True)
            place(part, target)
            self._note(output)

    def _download(self, key: str, path: Path, output: Output) -> None:
        meta = self._objects.head(key)
        if meta is None:
            raise FileNotFoundError(key)
        if meta["size"] > output.bytes:
            raise self._damage(key, f"it has {meta['size']:,} bytes instead of {output.bytes:,}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._objects.download(key, path)

    def _damage(self, key: str, reason: str) -> StoreError:
        return StoreError(
            f"{self.url}/{key} is damaged: {reason}",
            f"stepsearch-data verify {self.url} tells all that is wrong; "
            f"stepsearch-data build --store {self.url} --force builds it again",
        )

    def prepare(self) -> None:
        """Make the folder. Raises StoreError."""
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise StoreError where the copy cannot be written."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot write the copy of {self.url}: {error.strerror or error}",
                f"free some space for {self.root}, or choose another place: XDG_CACHE_HOME=FOLDER",
            ) from error

    def _is_here(self, output: Output) -> bool:
        path = self.root / output.path
        there = path.is_dir() if output.rows is None else path.is_file() and path.stat().st_size == output.bytes
        return there and self._digests.get(output.path) == output.digest

    @property
    def _digests(self) -> dict[str, str]:
        """Return the digests of what was fetched or made here, by path: the last line of a path counts."""
        try:
            lines = (self.root / "digests.txt").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        return {path: digest for digest, _, path in (line.partition(" ") for line in lines)}

    def _note(self, output: Output) -> None:
        with open(self.root / "digests.txt", "a", encoding="utf-8") as file:
            file.write(f"{output.digest} {output.path}\n")

    def refresh(self, key: str) -> None:
        """Bring a file here that others have changed. See `ChangingFiles.refresh`."""
        self.prepare()
        self.changing.refresh(key)

    # --- building

    @contextmanager
    def leased(self) -> Iterator[None]:
        """Lock the store at the URL for a build, and bring here what others have built. Raises StoreError."""
        lease = Lease(self._objects, str(self.root.absolute()))
        lease.take()
        self._lease = lease
        for name in ("_listed", "_sizes"):
            self.__dict__.pop(name, None)
        try:
            before = self._objects.head(MANIFEST)
            published = self.manifest()
            self._sent = set(_outputs(published))
            self.changing.take((*BESIDE, MANIFEST))
            self.publish()
            yield
            self.publish()
            self._sweep(before, published)
        except BaseException:
            with suppress(StoreError, OSError, Changed):
                lease.check()
                self.changing.bring(BESIDE)
            raise
        finally:
            self._lease = None
            with suppress(StoreError, Changed):
                lease.end()

    def publish(self) -> None:
        """Send what is committed here: its files first, its manifest last. Raises StoreError."""
        if self._lease is None:
            return
        self._lease.check()
        with suppress(FileNotFoundError):
            for output in _outputs(parse_manifest((self.root / MANIFEST).read_bytes(), self.url)):
                if output not in self._sent:
                    self._note(output)
                    self._send(output)
                elif not self.is_whole(output) and self._is_here(output):
                    self._send(output)
        self._lease.check()
        try:
            self.changing.bring((*BESIDE, MANIFEST))
        except Changed:
            raise StoreError(
                f"another build has changed {self.url} meanwhile", "the same command goes on from there"
            ) from None

    def takes(self, folder: str, staged: Path) -> bool:
        """Tell whether a stage's folder at the URL is free for staged files, or holds no other ones."""
        return all(
            self._same(key, staged / PurePath(key).relative_to(folder))
            for key in self._sizes
            if key.startswith(f"{folder}/")
        )

    def _send(self, output: Output) -> None:
        path = self.root / output.path
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            key = file.relative_to(self.root).as_posix()
            if not self._same(key, file):
                self._objects.upload(file, key)
                self._sizes[key] = file.stat().st_size
        self._sent.add(output)

    def _same(self, key: str, path: Path) -> bool:
        """Tell whether an object has the bytes of a file."""
        return path.is_file() and self._sizes.get(key) == path.stat().st_size and self._digest(key) == digest_of(path)

    def _sweep(self, before: dict[str, Any] | None, published: Manifest) -> None:
        """Delete files of stages that neither the manifest names nor the one before, where that is an hour old.

        All times are the server's. So who has read an earlier manifest had an hour to fetch what it names.
        """
        now = self._objects.head(KEY)
        if not now or not before or now["last_modified"] - before["last_modified"] < KEPT:
            return
        kept = {entry.folder for manifest in (published, self.manifest()) for entry in manifest.stages.values()}
        old = now["last_modified"] - KEPT
        self._objects.delete(
            key
            for key, meta in self._listed.items()
            if (folder := _FOLDER.fullmatch(key)) and folder[1] not in kept and meta["last_modified"] < old
        )


def _outputs(manifest: Manifest) -> Iterator[Output]:
    return (output for entry in manifest.stages.values() for output in entry.outputs.values())

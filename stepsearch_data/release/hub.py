"""A dataset repository on the Hugging Face Hub: the few calls that a release needs, patient, and plain when they fail.

Every method raises PublishError.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import HFValidationError, disable_progress_bars, validate_repo_id

from stepsearch_data.core.errors import ConfigError, PublishError
from stepsearch_data.core.progress import Meter
from stepsearch_data.release.client import Say, patiently, use_client
from stepsearch_data.release.faults import clean, told
from stepsearch_data.release.record import File
from stepsearch_data.remote.secrets import show_url

T = TypeVar("T")
PATIENCE = 300.0  # seconds
_KIND = "dataset"
_NAME = re.compile(r"(?P<repo>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^\s@]+))?")
_SHA = re.compile(r"[0-9a-f]{40}")
_AT_ONCE = 5  # files that are uploaded side by side


class User(NamedTuple):
    """Whose token it is, where it may write, and whether it may at all."""

    name: str
    namespaces: tuple[str, ...]
    writes: bool


class Head(NamedTuple):
    """A commit of the repository."""

    sha: str
    private: bool


class RemoteFile(NamedTuple):
    """A file of a commit: `oid` names it in git, `sha256` where it is stored apart from git."""

    bytes: int
    oid: str
    sha256: str | None


def parse_name(text: str) -> tuple[str, str | None]:
    """`USER/NAME` or `USER/NAME@REVISION`. Raises ConfigError."""
    match = _NAME.fullmatch(text)
    try:
        if match:
            validate_repo_id(match["repo"])
            return match["repo"], match["revision"]
    except HFValidationError:
        pass
    raise ConfigError(f"{text!r} is no name of a dataset on the Hub", "expected USER/NAME, or USER/NAME@TAG")


class Hub:
    """One dataset repository. `patience` is how many seconds a call is repeated while the Hub is busy."""

    def __init__(self, repo: str, patience: float = PATIENCE, say: Say = lambda _: None) -> None:
        self.repo = repo
        self._patience, self._say = patience, say
        self._api = HfApi()
        use_client(patience)
        disable_progress_bars()

    @property
    def url(self) -> str:
        """Where people see it."""
        return show_url(f"{constants.ENDPOINT}/datasets/{self.repo}")

    @property
    def tokens(self) -> str:
        """Where people make tokens."""
        return f"{constants.ENDPOINT}/settings/tokens"

    def user(self) -> User:
        """Whose token it is. Raises PublishError without one, too."""

        def ask() -> User:
            who = self._api.whoami()
            name = str(who["name"])
            role = who.get("auth", {}).get("accessToken", {}).get("role", "write")  # fineGrained: the Hub will tell
            return User(name, (name, *(str(org["name"]) for org in who.get("orgs", ()))), role != "read")

        return self._ask("ask the Hub who you are", ask)

    def find(self, revision: str | None = None) -> Head | None:
        """The commit that a revision names, by default the newest; None where there is no repository to see."""

        def look() -> Head | None:
            try:
                found = self._api.repo_info(self.repo, repo_type=_KIND, revision=revision)
            except RepositoryNotFoundError as error:
                if revision or error.response.headers.get("X-Error-Code") != "RepoNotFound":
                    raise
                return None
            if not _SHA.fullmatch(found.sha or ""):
                raise ValueError("the Hub names no commit")
            return Head(found.sha, bool(found.private))

        return self._ask(f"look at {self.repo}" + (f"@{revision}" if revision else ""), look)

    def check_write(self) -> None:
        """Raises PublishError where the token may not write to the repository."""
        self._ask(f"write to {self.repo}", lambda: self._api.auth_check(self.repo, repo_type=_KIND, write=True))

    def create(self, *, private: bool) -> None:
        """Make the repository, where there is none."""
        make = self._api.create_repo
        visible = {"private": True} if private else {}
        self._ask(f"create {self.repo}", lambda: make(self.repo, repo_type=_KIND, exist_ok=True, **visible))

    def tree(self, revision: str) -> dict[str, RemoteFile]:
        """The files of a revision, by their paths."""

        def read() -> list[Any]:
            return list(self._api.list_repo_tree(self.repo, recursive=True, revision=revision, repo_type=_KIND))

        listed = self._ask(f"list {self.repo}@{revision}", read)
        files = {found.path: found for found in listed if isinstance(found, RepoFile)}
        return {path: RemoteFile(f.size, f.blob_id, f.lfs.sha256 if f.lfs else None) for path, f in files.items()}

    def tags(self) -> dict[str, str]:
        """The commits that tags name."""
        refs = self._ask(f"list tags of {self.repo}", lambda: self._api.list_repo_refs(self.repo, repo_type=_KIND))
        return {ref.name: ref.target_commit for ref in refs.tags}

    def tag(self, name: str, sha: str) -> None:
        """Name a commit."""
        make = self._api.create_tag
        self._ask(f"tag {self.repo} as {name}", lambda: make(self.repo, tag=name, revision=sha, repo_type=_KIND))

    def commit(
        self,
        files: Mapping[str, tuple[Path, File]],
        deleted: Iterable[str],
        message: str,
        parent: str,
        meter: Meter,
    ) -> str:
        """Upload and delete files in one commit on top of `parent`, and nowhere else; returns the commit.

        Uploads come first and are seen by nobody before the commit; what the Hub has already is not sent.
        """
        meter.expect(len(files))
        added = [_addition(path, *of) for path, of in files.items()]  # for this parent alone: they keep what they saw
        removed = [CommitOperationDelete(path, is_folder=False) for path in deleted]
        upload, commit = self._api.preupload_lfs_files, self._api.create_commit
        with warnings.catch_warnings(action="ignore"):  # the Hub's advice about cards, and httpx2's to its callers
            for group in _groups(added):
                send = partial(upload, self.repo, group, repo_type=_KIND, free_memory=False)
                self._ask(f"upload to {self.repo}", send)
                meter.advance(len(group))
            finish = partial(commit, commit_message=message, repo_type=_KIND, parent_commit=parent)
            return self._ask(f"commit to {self.repo}", lambda: str(finish(self.repo, [*added, *removed]).oid))

    def download(self, path: str, revision: str, folder: Path) -> Path:
        """Fetch a file into a folder, unless the folder has it already."""
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise PublishError(f"{self.repo}@{revision} has a file outside itself: {path}")
        fetch = self._api.hf_hub_download
        with warnings.catch_warnings(action="ignore"):  # of a disk that is nearly full: the error says it
            found = self._ask(
                f"fetch {path} of {self.repo}@{revision}",
                lambda: fetch(self.repo, path, repo_type=_KIND, revision=revision, local_dir=folder),
            )
        return Path(found)

    def _ask(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return patiently(call, self._patience, lambda text: self._say(clean(text, get_token())))
        except Exception as error:  # noqa: BLE001 - the client's own, httpx2's, and whatever odd answers lead to
            raise told(error, doing, constants.ENDPOINT, get_token()) from None


def git_oid(path: Path) -> str:
    """What git names a file's content by."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _addition(path: str, local: Path, file: File) -> CommitOperationAdd:
    addition = CommitOperationAdd(path, local)
    addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # known: the file is not read once more for it
    return addition


def _groups(added: Sequence[CommitOperationAdd]) -> Iterable[Sequence[CommitOperationAdd]]:
    return (added[at : at + _AT_ONCE] for at in range(0, len(added), _AT_ONCE))

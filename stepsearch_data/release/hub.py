"""A repository on the Hugging Face Hub: the few calls that a release or a policy needs, with retries and plain errors.

`huggingface_hub` waits for an answer without a limit, repeats some calls for as long as a server asks for, and others
never. Here its client raises TransientError at once, and `patiently` is the one place where calls are repeated.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
    set_client_factory,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    HFValidationError,
    disable_progress_bars,
    logging,
    parse_ratelimit_headers,
    validate_repo_id,
)
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from stepsearch_data.core.errors import ConfigError, PublishError
from stepsearch_data.core.progress import Meter
from stepsearch_data.remote.http import RETRIED, TransientError, retry_after
from stepsearch_data.remote.secrets import redact, show_url

T = TypeVar("T")
Say = Callable[[str], None]
PATIENCE = 300.0  # seconds
Kind = Literal["dataset", "model"]
_NAME = re.compile(r"(?P<repo>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^\s@]+))?")
_SHA = re.compile(r"[0-9a-f]{40}")
_AT_ONCE = 5  # files that are uploaded side by side

_UNAUTHORIZED, _FORBIDDEN, _CONFLICT, _STALE = 401, 403, 409, 412
_TRANSIENT = RETRIED - {_CONFLICT}  # a conflict on the Hub is another person's commit or tag, and stays one
_CONNECT, _ANSWER = 10.0, 120.0  # seconds
_LONGEST = 30.0  # seconds between two attempts where the server does not say how long
_REPORTED = 2.0  # seconds; longer waits are reported

_TOKENS = "a token with the role `write` ({}/settings/tokens), as HF_TOKEN or by: hf auth login"
_KNOWN = (
    (LocalTokenNotFoundError, "there is no token", f"give {_TOKENS}"),
    (UnicodeEncodeError, "the token is not a token of the Hub", f"give {_TOKENS}"),  # it goes into a header as it is
    (OfflineModeIsEnabled, "HF_HUB_OFFLINE is set", "unset it"),
    (RevisionNotFoundError, "there is no such tag, branch or commit", "without @TAG: the newest"),
    (
        RepositoryNotFoundError,
        "there is no such dataset that you may see",
        "check the name; a private one needs the HF_TOKEN of a user who may read it",
    ),
    (
        json.JSONDecodeError,
        "the answer of {} is not the Hub's",
        "is a proxy or a login page in between? check HF_ENDPOINT and HTTPS_PROXY",
    ),
)
_AGAIN = "run the same command again: it goes on from what is there"
_WORDS = 300  # characters of a server's message that we repeat


class HubUnavailableError(PublishError):
    """The Hub cannot be reached, does not answer, or asks for a wait beyond the limit."""

    exit_code = 5


class ConflictError(PublishError):
    """Another commit or tag came in between."""


class _UnreachableError(TransientError):
    """No connection could be made."""


class User(NamedTuple):
    """Whose token it is, where it may write, and whether it may at all."""

    name: str
    namespaces: tuple[str, ...]
    writes: bool


class Head(NamedTuple):
    """A commit of the repository."""

    sha: str
    private: bool


def parse_name(text: str) -> tuple[str, str | None]:
    """Parse `USER/NAME` or `USER/NAME@REVISION`. Raises ConfigError."""
    with suppress(HFValidationError):
        if match := _NAME.fullmatch(text):
            validate_repo_id(match["repo"])
            return match["repo"], match["revision"]
    raise ConfigError(f"{text!r} is not the name of a dataset on the Hub", "expected USER/NAME, or USER/NAME@TAG")


class Hub:
    """One repository. `patience` is how many seconds a call that may still succeed is repeated."""

    def __init__(
        self, repo: str, patience: float = PATIENCE, say: Say = lambda _: None, kind: Kind = "dataset"
    ) -> None:
        self.repo, self.kind = repo, kind
        self._patience, self._say = patience, say
        self._api = HfApi()
        _use_client(patience)
        disable_progress_bars()

    @property
    def url(self) -> str:
        """Return the address where people see it."""
        return show_url(f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}")

    @property
    def tokens(self) -> str:
        """Return the address where people make tokens."""
        return f"{constants.ENDPOINT}/settings/tokens"

    def user(self) -> User:
        """Return whose token it is. Raises PublishError without one, too."""

        def ask() -> User:
            who = self._api.whoami()
            name = str(who["name"])
            role = who.get("auth", {}).get("accessToken", {}).get("role", "write")  # fineGrained: the Hub will tell
            return User(name, (name, *(str(org["name"]) for org in who.get("orgs", ()))), role != "read")

        return self._ask("ask the Hub who you are", ask)

    def find(self, revision: str | None = None) -> Head | None:
        """Find the commit that a revision names, by default the newest; None where no repository is visible."""

        def look() -> Head | None:
            try:
                found = self._api.repo_info(self.repo, repo_type=self.kind, revision=revision)
            except RepositoryNotFoundError as error:
                if revision or error.response.headers.get("X-Error-Code") != "RepoNotFound":
                    raise
                return None
            if not _SHA.fullmatch(found.sha or ""):
                raise ValueError("the Hub names no commit")
            return Head(found.sha, bool(found.private))

        return self._ask(f"look at {self.repo}" + (f"@{revision}" if revision else ""), look)

    def check_write(self) -> None:
        """Raise PublishError where the token may not write to the repository."""
        self._ask(f"write to {self.repo}", lambda: self._api.auth_check(self.repo, repo_type=self.kind, write=True))

    def create(self, *, private: bool) -> None:
        """Create the repository, unless it exists."""
        create = partial(self._api.create_repo, repo_type=self.kind, exist_ok=True, private=private or None)
        self._ask(f"create {self.repo}", lambda: create(self.repo))

    def tree(self, revision: str) -> dict[str, RepoFile]:
        """Return the files of a revision, by their paths."""

        def read() -> list[Any]:
            return list(self._api.list_repo_tree(self.repo, recursive=True, revision=revision, repo_type=self.kind))

        listed = self._ask(f"list {self.repo}@{revision}", read)
        return {found.path: found for found in listed if isinstance(found, RepoFile)}

    def tags(self) -> dict[str, str]:
        """Return the commits that tags name."""
        refs = self._ask(f"list tags of {self.repo}", lambda: self._api.list_repo_refs(self.repo, repo_type=self.kind))
        return {ref.name: ref.target_commit for ref in refs.tags}

    def tag(self, name: str, sha: str) -> None:
        """Name a commit."""
        make = self._api.create_tag
        self._ask(f"tag {self.repo} as {name}", lambda: make(self.repo, tag=name, revision=sha, repo_type=self.kind))

    def commit(
        self,
        files: Mapping[str, Path],
        deleted: Iterable[str],
        message: str,
        parent: str,
        meter: Meter,
    ) -> str:
        """Upload and delete files in one commit on top of `parent`, and nowhere else; returns the commit.

        Uploads come first and are invisible before the commit; files that the Hub already has are not sent.
        """
        meter.expect(len(files))
        added = [CommitOperationAdd(path, local) for path, local in files.items()]  # they remember this parent's files
        removed = [CommitOperationDelete(path, is_folder=False) for path in deleted]
        upload, commit = self._api.preupload_lfs_files, self._api.create_commit
        with warnings.catch_warnings(action="ignore"):  # the Hub's advice about cards, and httpx2's to its callers
            for at in range(0, len(added), _AT_ONCE):
                group = added[at : at + _AT_ONCE]
                send = partial(upload, self.repo, group, repo_type=self.kind, free_memory=False)
                self._ask(f"upload to {self.repo}", send)
                meter.advance(len(group))
            finish = partial(commit, commit_message=message, repo_type=self.kind, parent_commit=parent)
            return self._ask(f"commit to {self.repo}", lambda: str(finish(self.repo, [*added, *removed]).oid))

    def download(self, path: str, revision: str, folder: Path) -> Path:
        """Fetch a file into a folder, unless the folder has it already."""
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise PublishError(f"{self.repo}@{revision} has a file outside itself: {path}")
        fetch = self._api.hf_hub_download
        with warnings.catch_warnings(action="ignore"):  # of a disk that is nearly full: the error says it
            found = self._ask(
                f"fetch {path} of {self.repo}@{revision}",
                lambda: fetch(self.repo, path, repo_type=self.kind, revision=revision, local_dir=folder),
            )
        return Path(found)

    def _ask(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return patiently(call, self._patience, lambda text: self._say(_clean(text)))
        except Exception as error:  # noqa: BLE001 - the client's own, httpx2's, and whatever odd answers lead to
            found = _explained(error, doing)
            raise type(found)(_clean(found.message), _clean(found.hint)) from None


class _Client(httpx2.Client):
    """Raises TransientError where the same request may succeed later. It names the server: the Hub, or its storage."""

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = super().send(request, **options)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise _UnreachableError(f"{_server(error.request)} cannot be reached: {error}") from error
        except httpx2.TimeoutException as error:
            raise TransientError(f"{_server(error.request)} does not answer in time") from error
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
            raise TransientError(f"{_server(error.request)} broke off the connection: {reason}") from error
        if response.status_code in _TRANSIENT:
            response.close()
            message = f"{_server(response.request)} answers {response.status_code}"
            raise TransientError(message, _asked_to_wait(response))
        return response


def _server(request: httpx2.Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc.decode()}"


def _asked_to_wait(response: httpx2.Response) -> float | None:
    limit = parse_ratelimit_headers(response.headers)
    if limit and not limit.remaining:
        return float(limit.reset_in_seconds)
    return retry_after(response.headers)


def _use_client(patience: float) -> None:
    """Have all calls of `huggingface_hub` in this process sent by such a client."""
    logging.set_verbosity_error()  # it warns of every attempt, with whole URLs
    timeout = httpx2.Timeout(min(_ANSWER, patience), connect=min(_CONNECT, patience))
    own_hooks = get_session().event_hooks  # offline mode is one of them
    set_client_factory(partial(_Client, event_hooks=own_hooks, timeout=timeout, follow_redirects=True))


def patiently(call: Callable[[], T], patience: float, say: Say) -> T:
    """Call, and repeat while the error is transient; return the result.

    Raises the last error once `patience` seconds have passed since the first.
    """
    failed: list[float] = []
    growing = wait_random_exponential(multiplier=1, max=_LONGEST)

    def wait(state: RetryCallState) -> float:
        found = _transient(state.outcome.exception() if state.outcome else None)
        asked = found.retry_after if found else None
        return growing(state) if asked is None else asked

    def stop(state: RetryCallState) -> bool:
        now = state.outcome_timestamp or 0.0
        failed.append(now)  # from the first on, as an upload may take an hour before anything goes wrong
        return now - failed[0] + state.upcoming_sleep > patience

    def report(state: RetryCallState) -> None:
        if state.upcoming_sleep >= _REPORTED:
            found = _transient(state.outcome.exception() if state.outcome else None)
            say(f"{found}; trying again in {state.upcoming_sleep:.0f} s")

    may_succeed = retry_if_exception(lambda error: _transient(error) is not None)
    return Retrying(retry=may_succeed, wait=wait, stop=stop, before_sleep=report, reraise=True)(call)


def _transient(error: BaseException | None) -> TransientError | None:
    """Return the transient error behind an error, if there is one."""
    return next((cause for cause in _chain(error) if isinstance(cause, TransientError)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explained(error: Exception, doing: str) -> PublishError:
    """Turn the error of a call into ours; `doing` is what it was to do, such as `commit to ann/data`."""
    endpoint = constants.ENDPOINT
    if found := _transient(error):
        asked = f", and asks to wait {found.retry_after:.0f} s" if found.retry_after else ""
        hint = "check the network, HF_ENDPOINT and HTTPS_PROXY" if isinstance(found, _UnreachableError) else _AGAIN
        return HubUnavailableError(f"cannot {doing}: {found}{asked}", hint)
    for cause in _chain(error):
        for kind, why, hint in _KNOWN:
            if isinstance(cause, kind):
                return PublishError(f"cannot {doing}: {why.format(endpoint)}", hint.format(endpoint))
    response = next((cause for cause in _chain(error) if isinstance(cause, HfHubHTTPError)), None)
    if response is None:
        *_, root = _chain(error)
        reason = next((line for line in str(root).splitlines() if line.strip()), type(root).__name__)
        return PublishError(f"cannot {doing}: {reason[:_WORDS]}", _AGAIN)
    status, said = response.response.status_code, (response.server_message or "")[:_WORDS]
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        refused = "the Hub does not accept the token" if status == _UNAUTHORIZED else said or "the token may not"
        return PublishError(f"cannot {doing}: {refused}", f"give {_TOKENS.format(endpoint)}")
    if status in (_CONFLICT, _STALE):
        hint = "run the same command again: it compares with what is there now"
        return ConflictError(f"cannot {doing}: there was another change meanwhile ({said or status})", hint)
    return PublishError(f"cannot {doing}: {endpoint} answers {status}{said and ': '}{said}", _AGAIN)


def _clean(text: str) -> str:
    """Put a text in one line, without what looks like a secret."""
    token = get_token()
    return redact(" ".join(text.split()), [token] if token else [])

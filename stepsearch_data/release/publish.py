"""Publish a release folder on the Hub: compare, commit once, tag, compare again.

A release is there whole or not at all, because the Hub gets one commit on top of what was compared. After any
interruption, the same command continues: it compares with what is there, and does what is left to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from stepsearch_data.core.errors import ConfigError, PublishError
from stepsearch_data.core.progress import Meter
from stepsearch_data.release.hub import Head, Hub
from stepsearch_data.release.record import CARD, File, Published

_TAG = re.compile(r"(?!(?:main|HEAD)$)\w[\w.+-]{0,99}(?<!\.)(?<!\.lock)", re.ASCII)
_SHA = re.compile(r"[0-9a-f]{40}")
State = Literal["new", "changed", "stale", "same"]


class Change(NamedTuple):
    """What a commit would do to a file, and the bytes that it has on the side that stays or goes."""

    path: str
    state: State
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What is left to do. `head` is the commit that was compared with, None where there is no repository.

    `done` is the commit that holds exactly this release already, where there is one.
    """

    release: Published
    head: Head | None
    changes: tuple[Change, ...]
    done: str | None
    tagged: bool

    @property
    def nothing(self) -> bool:
        """Tell whether the Hub has all of it."""
        return self.done is not None and self.tagged

    def paths(self, *states: State) -> list[str]:
        """Return the files in one of these states."""
        return [change.path for change in self.changes if change.state in states]


def check_tag(tag: str | None) -> None:
    """Raise ConfigError for what git or the Hub would refuse as a tag, or take for a branch or a commit."""
    if tag is not None and (not _TAG.fullmatch(tag) or ".." in tag or _SHA.fullmatch(tag)):
        raise ConfigError(f"--tag {tag!r}: not a valid name of a version", "such as v1.0.0")


def check_account(hub: Hub, *, private: bool) -> None:
    """Raise PublishError where the token may not publish this. To be called before anything is written."""
    user = hub.user()
    if not user.writes:
        raise PublishError("the token may only read", f"make one with the role `write`: {hub.tokens}")
    namespace = hub.repo.partition("/")[0]
    if namespace not in user.namespaces:
        hint = f"the token is {user.name}'s; it may write to: {', '.join(user.namespaces)}"
        raise PublishError(f"cannot write to {hub.repo}: {namespace} is another user", hint)
    if found := hub.find():
        hub.check_write()
        if private and not found.private:
            hint = f"make it private first ({hub.url}/settings), or leave out --private"
            raise PublishError(f"{hub.repo} is public", hint)


def prepare(hub: Hub, release: Published) -> Plan:
    """Compare a release with the repository. Raises PublishError for a tag that names other content.

    Also for a repository whose data are not a release's: they would be lost.
    """
    head = hub.find()
    remote = hub.tree(head.sha) if head else {}
    changes = compare(release, remote)
    tag = release.version
    tagged = hub.tags().get(tag) if head and tag else None
    if tagged and not is_whole(release, hub.tree(tagged)):
        raise PublishError(
            f"the tag {tag} of {hub.repo} names another release", "a published tag stays as it is: choose a new --tag"
        )
    foreign = [change.path for change in changes if change.state in ("changed", "stale") and change.path != CARD]
    refuse_foreign(hub, foreign, remote, release.mark)
    same = head is not None and all(change.state == "same" for change in changes)
    done = tagged or (head.sha if head and same else None)
    return Plan(release, head, changes, done, tagged=not tag or tagged is not None)


def refuse_foreign(hub: Hub, foreign: Sequence[str], remote: Collection[str], mark: str) -> None:
    """Raise PublishError where `foreign` files would be lost, of a repository that the `mark` does not tell is ours."""
    if foreign and mark not in remote:
        named = ", ".join(foreign[:3])
        raise PublishError(f"{hub.repo} holds data that no release wrote: {named}", "choose another name")


def rehearse(hub: Hub, release: Published, *, private: bool) -> tuple[Plan | None, PublishError | None]:
    """Return what publishing would do, None where that is not known, and the error that would end it.

    The folder is written already, so this does not fail with the Hub.
    """
    plan = None
    try:
        plan = prepare(hub, release)
        check_account(hub, private=private)
    except PublishError as error:
        return plan, error
    return plan, None


def carry_out(hub: Hub, plan: Plan, meter: Meter, *, private: bool, message: str | None) -> str:
    """Do what a plan says; returns the commit that holds the release. Raises PublishError."""
    if plan.head is None:
        hub.create(private=private)
        plan = prepare(hub, plan.release)
    tag = plan.release.version
    sha = plan.done or _commit(hub, plan, meter, message or plan.release.label)
    if tag and not plan.tagged:
        _tag(hub, plan.release, tag, sha)
    if not is_whole(plan.release, hub.tree(tag or sha)):
        raise PublishError(f"{hub.repo}@{tag or sha} does not hold what was sent", "run the same command again")
    return sha


def compare(release: Published, remote: Mapping[str, RepoFile]) -> tuple[Change, ...]:
    """Compare a release with the files of a commit; of those, only the release's own folders count."""
    local = release.files()
    states = (Change(path, _state(release, path, file, remote.get(path)), file.bytes) for path, file in local.items())
    gone = (path for path in remote if release.owns(path) and path not in local)
    return (*states, *(Change(path, "stale", remote[path].size) for path in sorted(gone)))


def is_whole(release: Published, remote: Mapping[str, RepoFile]) -> bool:
    """Tell whether a commit holds exactly this release, and perhaps files of others."""
    return all(change.state == "same" for change in compare(release, remote))


def _state(release: Published, path: str, file: File, there: RepoFile | None) -> State:
    if there is None:
        return "new"
    if there.size != file.bytes:
        return "changed"
    if there.lfs:
        return "same" if there.lfs.sha256 == file.sha256 else "changed"
    return "same" if there.blob_id == git_hash((release.folder / path).read_bytes()) else "changed"


def _commit(hub: Hub, plan: Plan, meter: Meter, message: str) -> str:
    assert plan.head
    sent = {path: plan.release.folder / path for path in plan.paths("new", "changed")}
    try:
        return hub.commit(sent, plan.paths("stale"), message, plan.head.sha, meter)
    except PublishError as error:
        landed = _landed(hub, plan)  # the answer may be lost, and the commit not
        if landed is None:
            raise
        if landed == plan.head.sha:
            raise type(error)(f"{error.message}; {hub.repo} is as it was", error.hint) from None
        return landed


def _landed(hub: Hub, plan: Plan) -> str | None:
    """Return the newest commit, where it is the one compared with or holds the release.

    None where that is not known.
    """
    try:
        head = hub.find()
        if head and (head == plan.head or is_whole(plan.release, hub.tree(head.sha))):
            return head.sha
    except PublishError:
        pass
    return None


def _tag(hub: Hub, release: Published, tag: str, sha: str) -> None:
    try:
        hub.tag(tag, sha)
    except PublishError as error:
        tagged = hub.tags().get(tag)
        if tagged is None:
            raise type(error)(f"{error.message}; the release is there, only its tag is not", error.hint) from None
        if not is_whole(release, hub.tree(tagged)):
            raise

"""Everything that may go wrong between here and the Hub: what is said, and what is there afterwards.

Afterwards the Hub is as it was or holds the whole release, and the same command, run again, ends in exactly one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.hub_server import LOST, PAGE, Fault, Hub
from tests.release.conftest import BOB, READ, REPO, Command
from tests.release.test_publish import on_disk, on_hub

pytestmark = pytest.mark.long

ONE_RELEASE = ["initial commit", "Release v1.0.0"]
BUSY = Fault(503, "busy", {"Retry-After": "0"})
LOST_AFTER = Fault(cut=0, landed=True)
# Every action that publishing to a repository that is not there yet asks for.
ACTIONS = (
    *("whoami", "info", "tree", "refs", "create", "validate-yaml", "preupload"),
    *("batch", "upload", "verify", "commit", "tag"),
)


def untouched(hub: Hub) -> bool:
    """Whether nothing of a release is on the Hub; an empty repository may be."""
    repository = hub.repositories.get(REPO)
    return repository is None or (repository.messages == ["initial commit"] and not repository.tags)


def complete(hub: Hub, folder: Path) -> bool:
    """Whether the Hub holds what is in the folder, once."""
    whole = on_hub(hub, "v1.0.0") == on_hub(hub) == on_disk(folder / "release")
    return whole and hub.repositories[REPO].messages == ONE_RELEASE


def ends_in_one_release(hub: Hub, publish: Command, folder: Path) -> bool:
    """Whether the same command, without faults, makes it right."""
    hub.heal()
    said = publish()
    assert said.code == 0, said.text
    return complete(hub, folder)


# Who may publish


@pytest.mark.parametrize(
    ("token", "error", "hint"),
    [
        ("", "there is no token", "HF_TOKEN"),
        ("hf_badbadbadbad", "the Hub does not accept the token", "/settings/tokens"),
        ("hf_bäd", "the token is not a token of the Hub", "/settings/tokens"),
        (READ, "the token may only read", "role `write`"),
        (BOB, "cannot write to ann/data: ann is another user", "the token is bob's; it may write to: bob"),
    ],
    ids=["no", "bad", "no ASCII", "read-only", "another user's"],
)
def test_a_token_that_will_not_do(
    hub: Hub, publish: Command, tmp_path: Path, token: str, error: str, hint: str
) -> None:
    said = publish(token=token)
    assert said.code == 1
    first, second = said.err.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("hint: ")
    assert hint in second
    assert REPO not in hub.repositories
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize("taken", ["public", "private"])
def test_a_name_that_is_taken_by_someone_else(hub: Hub, command: Command, small_store: Path, taken: str) -> None:
    theirs = {"README.md": b"# Theirs"}
    hub.repository("bob/data", token=BOB if taken == "private" else None).commit(theirs)
    said = command("publish", "bob/data", "--yes", "--store", small_store)
    assert said.code == 1
    assert "error: cannot write to bob/data: bob is another user" in said.err
    assert hub.repositories["bob/data"].head == theirs


@pytest.mark.parametrize("action", ["create", "auth-check"])
def test_a_token_whose_rights_do_not_reach_so_far(hub: Hub, publish: Command, tmp_path: Path, action: str) -> None:
    if action == "auth-check":
        hub.repository(REPO).commit({}, message="initial commit")
    denied = {"X-Error-Message": "Forbidden: the token's scope has no write access to ann/data"}
    hub.fail(action, Fault(403, "", denied))
    said = publish()
    assert said.code == 1
    assert "the token's scope has no write access to ann/data" in said.err
    assert "role `write`" in said.err
    assert untouched(hub)
    assert ends_in_one_release(hub, publish, tmp_path)


def test_offline_mode(monkeypatch: pytest.MonkeyPatch, hub: Hub, publish: Command) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = publish()
    assert said.code == 1
    assert "HF_HUB_OFFLINE is set" in said.err
    assert hub.requests == []


# What passes


def page(status: int, **more: Any) -> Fault:
    return Fault(status, PAGE.body, {"Retry-After": "0", **PAGE.headers}, **more)


PASSING = {
    "busy, whatever it is asked": [(action, BUSY) for action in ACTIONS],
    "408": [("whoami", page(408))],
    "429": [("info", page(429))],
    "500": [("upload", page(500))],
    "502": [("commit", page(502))],
    "504": [("tag", page(504))],
    "an upload that is not read": [("upload", Fault(cut=0))] * 2,
    "an upload that is cut": [("upload", Fault(cut=1000))] * 2,
    "lost before it is done": [(action, LOST) for action in ("create", "commit", "tag")],
    "lost after create": [("create", LOST_AFTER)],
    **{
        f"lost after {action}: {what}": [(action, lost)]
        for action in ("commit", "tag")
        for what, lost in {
            "connection": LOST_AFTER,
            "500": page(500, landed=True),
            "page": page(200, landed=True),
        }.items()
    },
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_what_passes_ends_in_one_release(
    hub: Hub, publish: Command, tmp_path: Path, faults: list[tuple[str, Fault]]
) -> None:
    for action, fault in faults:
        hub.fail(action, fault)
    said = publish("--patience", "20")
    assert said.code == 0, said.text
    assert complete(hub, tmp_path)
    assert not [action for action, _ in faults if hub.fault(action)]


def test_what_the_hub_asks_to_wait_is_waited_and_told(hub: Hub, publish: Command) -> None:
    hub.fail("whoami", Fault(429, "", {"Retry-After": "2"}))
    started = time.monotonic()
    said = publish("--patience", "5")
    assert time.monotonic() - started >= 2
    assert said.code == 0
    assert f"{hub.endpoint} answers 429; trying again in 2 s" in said.err


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nowhere.invalid"])
def test_a_hub_that_cannot_be_reached(hub: Hub, publish: Command, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{host}")
    said = publish("--patience", "0.2")
    assert said.code == 5
    error, hint = said.err.splitlines()
    assert error.startswith(f"error: cannot ask the Hub who you are: http://{host} cannot be reached: ")
    assert hint == "hint: check the network, HF_ENDPOINT and HTTPS_PROXY"


def test_a_hub_that_is_slow(hub: Hub, publish: Command) -> None:
    hub.fail("whoami", Fault(delay=1), times=9)
    said = publish("--patience", "0.2")
    assert said.code == 5
    assert f"{hub.endpoint} does not answer in time" in said.err


def test_a_commit_that_takes_longer_than_anybody_waits(hub: Hub, publish: Command, tmp_path: Path) -> None:
    hub.fail("commit", Fault(delay=1.5))
    said = publish("--patience", "0.7")
    assert said.code == 0, said.text
    assert complete(hub, tmp_path)


def test_a_hub_that_goes_away_after_the_commit(hub: Hub, publish: Command, tmp_path: Path) -> None:
    hub.fail("commit", LOST_AFTER)
    hub.fail("commit", Fault(503), times=100)
    hub.fail("info", Fault(), times=3)
    hub.fail("info", Fault(503), times=100)
    said = publish()
    assert said.code == 5
    assert "as it was" not in said.err  # it is not, and nobody can know
    assert ends_in_one_release(hub, publish, tmp_path)


def test_a_tag_that_cannot_be_set(hub: Hub, publish: Command, tmp_path: Path) -> None:
    hub.fail("tag", Fault(503), times=100)
    said = publish()
    assert said.code == 5
    assert "the release is there, only its tag is not" in said.err
    assert on_hub(hub) == on_disk(tmp_path / "release")
    assert ends_in_one_release(hub, publish, tmp_path)


# What does not pass

JSON = {"Content-Type": "application/json"}
ODD = {"whoami": "null", "info": "{}", "preupload": '{"files": 1}', "batch": '{"objects": [{}]}', "commit": "[]"}
AGAIN = "hint: run the same command again"
LATER = "{0} answers 429, and asks to wait 3600 s"
NO_HUB = ("the answer of {0} is not the Hub's", "hint: is a proxy or a login page in between?")
CHANGED = ("there was another change meanwhile (A commit has happened since.", "ann/data is as it was", AGAIN)
NEWER = '{"error": "A commit has happened since. Please refresh and try again."}'
STAYING: list[tuple[str, Fault, int, tuple[str, ...]]] = [
    ("whoami", Fault(503), 5, ("{0} answers 503", AGAIN)),
    ("create", Fault(429, "", {"Retry-After": "1"}), 5, ("{0} answers 429", AGAIN)),
    ("upload", Fault(500), 5, ("{1} answers 500", AGAIN)),
    ("commit", page(502), 5, ("{0} answers 502", AGAIN)),
    ("info", Fault(429, "", {"Retry-After": "3600"}), 5, (LATER,)),
    ("preupload", Fault(429, "", {"RateLimit": '"api";r=0;t=3600'}), 5, (LATER,)),
    ("upload", Fault(429, "", {"Retry-After": "3600"}), 5, (LATER.replace("{0}", "{1}"),)),
    ("upload", Fault(cut=1000), 5, ("error: cannot upload to ann/data", "ann/data is as it was")),
    *((action, PAGE, 1, NO_HUB) for action in ("whoami", "info", "preupload", "commit")),
    *((action, Fault(200, text, JSON), 1, ("error: cannot ",)) for action, text in ODD.items()),
    *(("commit", Fault(status, NEWER), 1, CHANGED) for status in (409, 412)),
]


@pytest.mark.parametrize(
    ("action", "fault", "code", "says"),
    STAYING,
    ids=[f"{action} {fault.status} {at}" for at, (action, fault, *_) in enumerate(STAYING)],
)
def test_what_stays_wrong_is_told_soon_and_changes_nothing(
    hub: Hub, publish: Command, tmp_path: Path, action: str, fault: Fault, code: int, says: tuple[str, ...]
) -> None:
    storage = hub.storage.removesuffix("/storage")
    hub.fail(action, fault, times=1000 if code == 5 else 3)
    started = time.monotonic()
    said = publish()
    assert time.monotonic() - started < 10
    assert said.code == code
    assert [words for words in says if words.format(hub.endpoint, storage) not in said.err] == []
    assert untouched(hub)
    assert ends_in_one_release(hub, publish, tmp_path)


# Others at work


def test_a_tag_that_names_another_release_stays(hub: Hub, publish: Command, other_store: Path, tmp_path: Path) -> None:
    assert publish().code == 0
    before = dict(hub.repositories[REPO].commits)
    said = publish(store=other_store)
    assert said.code == 1
    assert "error: the tag v1.0.0 of ann/data names another release" in said.err
    assert "hint: a published tag stays as it is: choose a new --tag" in said.err
    assert hub.repositories[REPO].commits == before
    assert ends_in_one_release(hub, publish, tmp_path)


def test_a_tag_that_somebody_sets_elsewhere_meanwhile(hub: Hub, publish: Command, tmp_path: Path) -> None:
    empty = hub.repository(REPO).commit({}, message="initial commit")
    hub.fail("tag", Fault(409, '{"error": "Tag reference exists already"}'))
    hub.fail("refs", Fault())
    hub.fail("refs", Fault(200, _refs("v1.0.0", empty), JSON))
    said = publish()
    assert said.code == 1
    assert "there was another change meanwhile (Tag reference exists already)" in said.err
    assert on_hub(hub) == on_disk(tmp_path / "release")
    assert hub.repositories[REPO].tags == {}


def _refs(tag: str, sha: str) -> str:
    return f'{{"branches": [], "converts": [], "tags": [{{"name": "{tag}", "ref": "", "targetCommit": "{sha}"}}]}}'


# What arrives


def test_what_arrived_is_looked_at(hub: Hub, publish: Command, tmp_path: Path) -> None:
    hub.fail("tree", Fault(), times=2)
    hub.fail("tree", Fault(200, "[]", JSON))
    said = publish()
    assert said.code == 1
    assert "error: ann/data@v1.0.0 does not hold what was sent" in said.err
    assert ends_in_one_release(hub, publish, tmp_path)


def test_a_hub_that_repeats_the_token_does_not_make_us_say_it(hub: Hub, publish: Command) -> None:
    for token in ("hf_thisIsASecretThatNobodyMaySee", READ):
        hub.fail("commit", Fault(400, f'{{"error": "no: {token}\\n at https://x/?X-Signature=s3cr3t"}}'))
        said = publish()  # the fixture looks for them in all that it says
        assert said.code == 1
        assert "answers" in said.err
        assert "***" in said.err

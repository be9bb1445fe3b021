"""Everything that may go wrong between here and the Hub: what is said, and what is there afterwards.

Afterwards the Hub is as it was or holds the whole release, and the same command, run again, ends in exactly one.
"""

from __future__ import annotations

import time
from pathlib import Path

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


# What may pass


def test_a_busy_hub_is_asked_again_whatever_it_was_asked(hub: Hub, publish: Command, tmp_path: Path) -> None:
    for action in ACTIONS:
        hub.fail(action, BUSY)
    said = publish()
    assert said.code == 0, said.text
    assert complete(hub, tmp_path)
    assert not [action for action in ACTIONS if hub.fault(action)]


def test_other_answers_that_may_pass(hub: Hub, publish: Command, tmp_path: Path) -> None:
    for action, status in (("whoami", 408), ("info", 429), ("upload", 500), ("commit", 502), ("tag", 504)):
        hub.fail(action, Fault(status, PAGE.body, {"Retry-After": "0", **PAGE.headers}))
    said = publish()
    assert said.code == 0, said.text
    assert complete(hub, tmp_path)


@pytest.mark.parametrize(
    ("action", "busy"),
    [
        ("whoami", Fault(503)),
        ("create", Fault(429, "", {"Retry-After": "1"})),
        ("upload", Fault(500)),
        ("commit", Fault(502, PAGE.body, PAGE.headers)),
    ],
    ids=["whoami", "create", "upload", "commit"],
)
def test_a_hub_that_stays_busy_is_given_up(
    hub: Hub, publish: Command, tmp_path: Path, action: str, busy: Fault
) -> None:
    hub.fail(action, busy, times=1000)
    started = time.monotonic()
    said = publish()
    assert time.monotonic() - started < 10
    assert said.code == 5
    error = next(line for line in said.err.splitlines() if line.startswith("error: "))
    assert f"{hub.endpoint} answers {busy.status}" in error
    assert "hint: run the same command again" in said.err
    assert untouched(hub)
    assert ends_in_one_release(hub, publish, tmp_path)


@pytest.mark.parametrize(
    ("action", "headers"),
    [
        ("info", {"Retry-After": "3600"}),
        ("preupload", {"RateLimit": '"api";r=0;t=3600'}),
        ("upload", {"Retry-After": "3600"}),
    ],
    ids=["info", "preupload", "upload"],
)
def test_nobody_waits_an_hour(hub: Hub, publish: Command, action: str, headers: dict[str, str]) -> None:
    hub.fail(action, Fault(429, "", headers))
    started = time.monotonic()
    said = publish()
    assert time.monotonic() - started < 5
    assert said.code == 5
    assert f"{hub.endpoint} answers 429, and asks to wait 3600 s" in said.err
    assert untouched(hub)


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


# Uploads and answers that are lost


@pytest.mark.parametrize("cut", [0, 1000])
def test_an_upload_that_is_cut_is_sent_again(hub: Hub, publish: Command, tmp_path: Path, cut: int) -> None:
    hub.fail("upload", Fault(cut=cut), times=2)
    said = publish("--patience", "20")
    assert said.code == 0, said.text
    assert complete(hub, tmp_path)


def test_uploads_that_are_always_cut(hub: Hub, publish: Command, tmp_path: Path) -> None:
    hub.fail("upload", Fault(cut=1000), times=1000)
    said = publish()
    assert said.code == 5
    assert "error: cannot upload to ann/data" in said.err
    assert "ann/data is as it was" in said.err
    assert untouched(hub)
    assert ends_in_one_release(hub, publish, tmp_path)


@pytest.mark.parametrize(
    "lost",
    [LOST_AFTER, Fault(500, landed=True), Fault(200, PAGE.body, PAGE.headers, landed=True)],
    ids=["connection", "500", "page"],
)
@pytest.mark.parametrize("action", ["commit", "tag"])
def test_an_answer_that_is_lost_after_the_deed(
    hub: Hub, publish: Command, tmp_path: Path, action: str, lost: Fault
) -> None:
    hub.fail(action, lost)
    said = publish("--patience", "5")
    assert said.code == 0, said.text
    assert complete(hub, tmp_path)


def test_a_repository_whose_making_was_not_answered(hub: Hub, publish: Command, tmp_path: Path) -> None:
    hub.fail("create", LOST_AFTER)
    said = publish("--patience", "5")
    assert said.code == 0, said.text
    assert complete(hub, tmp_path)


def test_questions_that_are_lost_before_the_deed(hub: Hub, publish: Command, tmp_path: Path) -> None:
    for action in ("create", "commit", "tag"):
        hub.fail(action, LOST)
    said = publish("--patience", "5")
    assert said.code == 0, said.text
    assert complete(hub, tmp_path)


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


# Others at work


@pytest.mark.parametrize("status", [409, 412])
def test_somebody_committed_meanwhile(hub: Hub, publish: Command, tmp_path: Path, status: int) -> None:
    hub.fail("commit", Fault(status, '{"error": "A commit has happened since. Please refresh and try again."}'))
    said = publish()
    assert said.code == 1
    assert "there was another change meanwhile (A commit has happened since." in said.err
    assert "ann/data is as it was" in said.err
    assert "hint: run the same command again" in said.err
    assert untouched(hub)
    assert ends_in_one_release(hub, publish, tmp_path)


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
    hub.fail("refs", Fault(200, _refs("v1.0.0", empty), {"Content-Type": "application/json"}))
    said = publish()
    assert said.code == 1
    assert "there was another change meanwhile (Tag reference exists already)" in said.err
    assert on_hub(hub) == on_disk(tmp_path / "release")
    assert hub.repositories[REPO].tags == {}


def _refs(tag: str, sha: str) -> str:
    return f'{{"branches": [], "converts": [], "tags": [{{"name": "{tag}", "ref": "", "targetCommit": "{sha}"}}]}}'


# Answers that are none


@pytest.mark.parametrize("action", ["whoami", "info", "preupload", "commit"])
def test_a_web_page_instead_of_an_answer(hub: Hub, publish: Command, tmp_path: Path, action: str) -> None:
    hub.fail(action, PAGE, times=3)
    said = publish()
    assert said.code == 1
    assert f"the answer of {hub.endpoint} is not the Hub's" in said.err
    assert "hint: is a proxy or a login page in between?" in said.err
    assert untouched(hub)
    assert ends_in_one_release(hub, publish, tmp_path)


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("whoami", "null"),
        ("info", "{}"),
        ("preupload", '{"files": 1}'),
        ("batch", '{"objects": [{}]}'),
        ("commit", "[]"),
    ],
    ids=["whoami", "info", "preupload", "batch", "commit"],
)
def test_json_instead_of_an_answer(hub: Hub, publish: Command, tmp_path: Path, action: str, body: str) -> None:
    hub.fail(action, Fault(200, body, {"Content-Type": "application/json"}))
    said = publish()
    assert said.code == 1
    assert any(line.startswith("error: cannot ") for line in said.err.splitlines())
    assert untouched(hub)
    assert ends_in_one_release(hub, publish, tmp_path)


def test_what_arrived_is_looked_at(hub: Hub, publish: Command, tmp_path: Path) -> None:
    hub.fail("tree", Fault(), times=2)
    hub.fail("tree", Fault(200, "[]", {"Content-Type": "application/json"}))
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

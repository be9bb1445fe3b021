"""Publishing to a Hub on loopback with the real client: what arrives, and what stays when it is done again."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.hub import ConflictError
from stepsearch_data.release.hub import Hub as Repository
from stepsearch_data.release.publish import carry_out, prepare
from stepsearch_data.release.record import Release
from stepsearch_data.release.write import ReleaseSettings, write_release
from stepsearch_data.trajectory import read_trajectories
from tests.hub_server import Fault, Files, Hub
from tests.release.conftest import REPO, TOKEN, Command
from tests.releases import build

pytestmark = pytest.mark.long


def on_disk(folder: Path) -> Files:
    """The files of a release's folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def on_hub(hub: Hub, tag: str | None = None) -> Files:
    """The files of a release on the Hub, without what the Hub adds."""
    repository = hub.repositories[REPO]
    files = repository.commits[repository.tags[tag]] if tag else repository.head
    return {path: data for path, data in files.items() if path != ".gitattributes"}


def test_what_is_on_the_hub_is_the_folder_in_one_commit_with_its_tag(
    hub: Hub, publish: Command, tmp_path: Path
) -> None:
    said = publish()
    assert said.code == 0, said.text
    assert on_hub(hub, "v1.0.0") == on_hub(hub) == on_disk(tmp_path / "release")
    assert hub.repositories[REPO].messages == ["initial commit", "Release v1.0.0"]
    *_, link, load = said.out.splitlines()
    assert link == f"{hub.endpoint}/datasets/{REPO}/tree/v1.0.0"
    assert load == f'load_dataset("{REPO}", "trajectories", revision="v1.0.0")'


def test_publishing_again_changes_nothing(hub: Hub, publish: Command) -> None:
    assert publish().code == 0
    before = len(hub.requests)
    again = publish()
    assert again.code == 0
    assert "all of it is there already" in again.out
    assert len(hub.repositories[REPO].commits) == 2
    assert not [request for request in hub.requests[before:] if not request.startswith("GET")]


def test_a_tag_that_is_missing_is_set_without_a_commit(hub: Hub, publish: Command) -> None:
    assert publish().code == 0
    repository = hub.repositories[REPO]
    repository.tags.clear()
    assert publish().code == 0
    assert repository.tags == {"v1.0.0": repository.branches["main"]}
    assert len(repository.commits) == 2


def test_without_a_tag_the_newest_commit_is_the_release(hub: Hub, publish: Command, tmp_path: Path) -> None:
    said = publish("--message", "All of it", tag="")
    assert said.code == 0
    assert said.out.splitlines()[-1] == f'load_dataset("{REPO}", "trajectories")'
    assert hub.repositories[REPO].messages[-1] == "All of it"
    assert hub.repositories[REPO].tags == {}
    assert on_hub(hub) == on_disk(tmp_path / "release")


def test_a_new_version_deletes_what_is_stale_and_nothing_else(
    hub: Hub, publish: Command, other_store: Path, tmp_path: Path
) -> None:
    assert publish().code == 0
    first = on_hub(hub)
    repository = hub.repositories[REPO]
    own = {"notes/mine.md": b"mine", "figure.png": b"png"}
    repository.commit({**repository.head, **own, "data/queries/train-00007-of-00009.parquet": b"PAR1"})
    said = publish(store=other_store, tag="v1.1.0")
    assert said.code == 0, said.text
    assert "delete" in said.out
    assert on_hub(hub) == {**on_disk(tmp_path / "release"), **own}
    assert on_hub(hub, "v1.0.0") == first
    assert set(first) - set(on_hub(hub))


def test_the_first_version_again_is_there_already_though_a_second_one_is_out(
    hub: Hub, publish: Command, other_store: Path
) -> None:
    assert publish().code == 0
    assert publish(store=other_store, tag="v1.1.0").code == 0
    newest = on_hub(hub)
    assert publish().code == 0
    assert on_hub(hub) == newest


def test_only_what_changed_is_uploaded(hub: Hub, publish: Command) -> None:
    assert publish().code == 0
    before = len(hub.requests)
    assert publish(tag="v1.0.1").code == 0
    assert not [request for request in hub.requests[before:] if request.startswith("PUT")]
    assert hub.repositories[REPO].messages[-1] == "Release v1.0.1"


def test_private_is_private(hub: Hub, publish: Command, command: Command) -> None:
    assert publish("--private").code == 0
    assert hub.repositories[REPO].token == TOKEN
    assert publish("--private", tag="v1.0.1").code == 0
    unseen = command("verify", f"{REPO}@v1.0.0", "--patience", "1", token="")
    assert unseen.code == 1
    assert "no such dataset that you may see" in unseen.err or "no dataset ann/data that you may see" in unseen.err


def test_public_does_not_become_private(hub: Hub, publish: Command) -> None:
    assert publish().code == 0
    said = publish("--private", tag="v1.0.1")
    assert said.code == 1
    assert "error: ann/data is public" in said.err
    assert len(hub.repositories[REPO].commits) == 2


def test_the_folder_lies_beside_the_store_unless_told(
    hub: Hub, command: Command, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_store, tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert command("publish", REPO, "--dry-run", "--store", ".").code == 0
    assert (tmp_path / "mine.release" / "release.json").is_file()
    assert command("publish", REPO, "--yes", "--quiet", "--store", ".").code == 0
    (tmp_path / "pulled").mkdir()
    monkeypatch.chdir(tmp_path / "pulled")
    assert command("pull", REPO, "--store", ".").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.release", "pulled"]


def test_an_organization_is_published_to_by_its_members(hub: Hub, command: Command, small_store: Path) -> None:
    said = command("publish", "team/data", "--yes", "--store", small_store)
    assert said.code == 0, said.text
    assert "release.json" in hub.repositories["team/data"].head


def test_data_of_others_are_not_overwritten(hub: Hub, publish: Command) -> None:
    theirs = {"README.md": b"# Mine", "data/train.parquet": b"PAR1"}
    hub.repository(REPO).commit(theirs)
    said = publish()
    assert said.code == 1
    assert "ann/data holds data that no release wrote: data/train.parquet" in said.err
    assert hub.repositories[REPO].head == theirs


# Before anything is sent


def test_a_dry_run_writes_the_folder_and_sends_nothing(hub: Hub, publish: Command, tmp_path: Path) -> None:
    said = publish("--dry-run")
    assert said.code == 0
    assert "ann/data is made first" in said.out
    assert "add" in said.out
    assert (tmp_path / "release" / "release.json").is_file()
    assert not [request for request in hub.requests if not request.startswith("GET")]


def test_a_dry_run_says_that_rollouts_go_out(publish: Command, small_store: Path, tmp_path: Path) -> None:
    assert "rollouts" not in publish("--dry-run").err
    first = next(iter(read_trajectories(Store(small_store)))).question_id
    (tmp_path / "mine.jsonl").write_text(json.dumps({"id": first, "response": "no"}))
    kept = ("load.limit=4", f'rollouts.policies=["mine={tmp_path / "mine.jsonl"}"]')
    said = publish("--dry-run", store=build(tmp_path / "store", *kept).root)
    assert "note: rollouts go out with it, all that policies wrote and were shown: 1" in said.err


def test_a_dry_run_says_what_would_change(hub: Hub, publish: Command, other_store: Path) -> None:
    assert publish().code == 0
    said = publish("--dry-run", store=other_store, tag="v1.1.0")
    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines() if "README.md" in line] == ["replace"]
    assert [line for line in said.out.splitlines() if line.startswith("delete")]
    assert len(hub.repositories[REPO].commits) == 2


@pytest.mark.parametrize(
    ("token", "says"), [("", "there is no token"), ("hf_badbadbadbad", "does not accept the token")], ids=["no", "bad"]
)
def test_a_dry_run_without_a_token_still_writes_the_folder(
    publish: Command, tmp_path: Path, token: str, says: str
) -> None:
    said = publish("--dry-run", token=token)
    assert said.code == 0
    assert f"publishing would fail now: {'' if token else 'cannot ask the Hub who you are: '}" in said.err
    assert says in said.err
    assert (tmp_path / "release" / "release.json").is_file()


@pytest.mark.parametrize(
    "arguments", [[REPO], [f"{REPO}@v1.0.0", "--yes"], ["data", "--yes"], [REPO, "--yes", "--tag", "main"]]
)
def test_what_cannot_be_meant_is_wrong_usage(
    hub: Hub, command: Command, small_store: Path, arguments: list[str]
) -> None:
    said = command("publish", *arguments, "--store", small_store)
    assert said.code == 2
    assert "hint:" in said.err
    assert hub.requests == []


def test_an_unfinished_store_is_not_published(hub: Hub, publish: Command, tmp_path: Path) -> None:
    said = publish(store=tmp_path / "nothing")
    assert said.code == 1
    assert "there is no store" in said.err
    assert hub.repositories == {}


def test_somebody_is_asked_first(hub: Hub, small_store: Path, tmp_path: Path) -> None:
    def answer(text: bytes) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        os.write(ours, text)
        with subprocess.Popen(arguments, stdin=theirs, stderr=subprocess.PIPE, text=True, env=env) as process:
            _, said = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        return process.returncode, said

    arguments = cli_arguments(small_store, tmp_path)
    env = environment(hub, tmp_path)
    code, said = answer(b"n\n")
    assert code == 1
    assert "nothing was sent" in said
    assert REPO not in hub.repositories
    code, said = answer(b"y\n")
    assert code == 0, said
    assert "release.json" in hub.repositories[REPO].head


# While it is sent


def test_killed_in_the_middle_of_an_upload_the_same_command_goes_on(
    hub: Hub, small_store: Path, tmp_path: Path
) -> None:
    arguments, env = [*cli_arguments(small_store, tmp_path), "--yes"], environment(hub, tmp_path)
    hub.fail("upload", Fault())
    hub.fail("upload", Fault(delay=3), times=20)
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=env) as process:
        while not any(request.startswith("PUT") for request in hub.requests):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    hub.heal()
    assert hub.repositories[REPO].messages == ["initial commit"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert on_hub(hub) == on_disk(tmp_path / "release")
    assert hub.repositories[REPO].messages == ["initial commit", "Release v1.0.0"]


@pytest.fixture
def release(small_store: Path, tmp_path: Path) -> Release:
    settings = ReleaseSettings(name=REPO, version="v1.0.0")
    return write_release(Store(small_store), tmp_path / "own", settings, Meter(None, "release"))


def test_what_somebody_commits_meanwhile_is_not_overwritten(hub: Hub, publish: Command, release: Release) -> None:
    theirs = {"notes.md": b"meanwhile"}
    hub.repository(REPO).commit({".gitattributes": b""})
    ours = Repository(REPO, patience=1)
    plan = prepare(ours, release)
    hub.repository(REPO).commit({".gitattributes": b"", **theirs})
    with pytest.raises(ConflictError, match="there was another change meanwhile"):
        carry_out(ours, plan, Meter(None, "publish"), private=False, message=None)
    assert hub.repositories[REPO].head == {".gitattributes": b"", **theirs}
    assert hub.repositories[REPO].tags == {}
    assert publish().code == 0
    assert on_hub(hub) == {**on_disk(release.folder), **theirs}


def cli_arguments(store: Path, folder: Path) -> list[str]:
    verb = ["publish", REPO, "--tag", "v1.0.0", "--store", str(store), "--output", str(folder / "release")]
    return [sys.executable, "-W", "error", "-m", "stepsearch_data", *verb]


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    """For clients that are processes of their own."""
    return {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": TOKEN,
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    }

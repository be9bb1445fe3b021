"""One command from a store to tables of rollouts: played once, whatever interrupts it, and known to later builds."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from stepsearch_data.api import open as open_store
from stepsearch_data.builds import recalled, run_config
from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.core.intervals import BANDS, Passes
from stepsearch_data.core.progress import Reporter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.remembered import remember
from stepsearch_data.remote.cache import WINDOW_REPLIES
from stepsearch_data.rollouts import keep, name_policy, plan_keeping
from stepsearch_data.stages import STAGES
from stepsearch_data.trainer.run_folder import RECIPE
from tests.conftest import Run
from tests.evaluation.policies import ENVIRONMENT, Row, ScriptedPolicy, asked, rows, world
from tests.fake import Fault
from tests.llm_server import LlmServer, error

SAMPLES = 4
BATCH = 16
TABLES = ("rollouts", "rollout_turns", "quality")


@pytest.fixture
def store(sample_store: Path, tmp_path: Path) -> Path:
    """The sample's store, to add to."""
    return shutil.copytree(sample_store, tmp_path / "store")


def command(store: Path, server: LlmServer, *more: str) -> list[str]:
    served = ["--llm", "org/mine", "--base-url", server.url, "--samples", str(SAMPLES), "--batch", str(BATCH)]
    return ["rollouts", *served, "--store", str(store), *more]


def played(cli: Run, store: Path, server: LlmServer, *more: str) -> Row:
    """What the command prints."""
    done = cli(*command(store, server, *more, "--json", "--quiet"), env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    found: Row = json.loads(done.stdout)
    return found


def tables(store: Path) -> dict[str, list[Row]]:
    """The tables that follow from rollouts, row by row."""
    opened = open_store(store)
    return {name: opened.table(name).collect().to_dicts() for name in TABLES}


@contextmanager
def killed(store: Path, server: LlmServer, folder: Path, after: int) -> Iterator[None]:
    """End the command with kill -9 once so many rollouts are in its folder."""
    arguments = [sys.executable, "-m", "stepsearch_data", *command(store, server, "--quiet")]
    with subprocess.Popen(arguments, env=ENVIRONMENT) as process:
        while not ((folder / "rollouts.jsonl").exists() and len(rows(folder)) >= after):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    yield


@pytest.mark.long
def test_it_is_played_once_kept_and_known_to_later_builds(cli: Run, tmp_path: Path) -> None:
    store = world(cli, tmp_path, 12)
    folder = tmp_path / "store.rollouts" / "mine"
    policy = ScriptedPolicy(store, SAMPLES)
    passes, whole = policy.passes(), SAMPLES * len(policy.passes())
    with policy.server() as server:
        with killed(store, server, folder, whole // 3):
            there = {(row["prompt"].strip(), row["sample"] - 1) for row in rows(folder)}
        assert 0 < len(there) < whole
        assert "rollouts" not in open_store(store).tables
        earlier = len(server.requests)
        found = played(cli, store, server)
        needed = len(server.requests)
        later = {(each["messages"][0]["content"], each.get("seed") or 0) for each in server.requests[earlier:]}
        assert not there & later
        # Of unfinished rollouts, replies are asked for again that were on their way or in the cache's last window.
        assert needed - len(asked(server.requests)) < WINDOW_REPLIES + BATCH
        kept = tables(store)
        assert played(cli, store, server) == {**found, "usage": {**found["usage"], "calls": 0}} | {
            "usage": dict.fromkeys(found["usage"], 0)
        }
        assert len(server.requests) == needed
    right = {(row["question_id"], row["sample"]): row["right"] for row in kept["rollouts"]}
    assert right == {(name, at + 1): at < passes[name] for name in passes for at in range(SAMPLES)}
    assert {row["policy"] for row in kept["rollouts"]} == {"mine"}
    assert {row["question_id"]: row["pass_rate"] for row in kept["quality"]} == {
        name: count / SAMPLES for name, count in passes.items()
    }
    assert len(kept["rollout_turns"]) == sum(len(row["searches"]) for row in rows(folder))
    assert (found["policy"], found["questions"], found["rollouts"]) == ("mine", len(passes), whole)
    assert found["pass_rate"] == pytest.approx(sum(passes.values()) / whole)
    assert found["pass_rate_interval"][0] < found["pass_rate"] < found["pass_rate_interval"][1]
    in_bands = [Passes(count, SAMPLES).band for count in passes.values()]
    assert found["bands"] == {band: in_bands.count(band) for band in BANDS}
    assert (found["rejected"], found["picks"]) == ([], [])

    built = cli("build", "--store", store, "--stage", "all")
    assert built.returncode == 0, built.stderr
    assert {line.split()[1] for line in built.stderr.splitlines() if line.split()[0] in TABLES} == {"current"}
    assert tables(store) == kept


def test_a_rehearsal_says_what_it_would_be_and_changes_nothing(cli: Run, store: Path, tmp_path: Path) -> None:
    policy = ScriptedPolicy(store, SAMPLES)
    with policy.server() as server:
        prices = ("--set", "llm.prices={'org/mine' = [1.0, 2.0]}")
        questions = 2 * 2
        calls = questions * SAMPLES * 6
        assert played(cli, store, server, "--split", "train", "-n", "2", "--dry-run", *prices) == {
            "questions": questions,
            "rollouts": questions * SAMPLES,
            "there": 0,
            "turns_at_most": calls,
            "completion_tokens_at_most": calls * 500,
            "cost_at_most": pytest.approx(calls * (4096 + 2 * 500) / 1e6),
            "store": str(store),
            "policy": "mine",
            "folder": str(tmp_path / "store.rollouts" / "mine"),
        }
        assert not server.requests
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


@pytest.mark.long
def test_a_budget_ends_it_before_anything_is_kept_and_the_next_one_goes_on(
    cli: Run, store: Path, tmp_path: Path
) -> None:
    policy = ScriptedPolicy(store, SAMPLES)
    some = ("--split", "train", "-n", "3", "--set", "llm.prices={'org/mine' = [1000.0, 1000.0]}")  # $0.12 a call
    with policy.server() as server:
        run = partial(cli, env=ENVIRONMENT)
        ended = run(*command(store, server, *some, "--max-cost", "6", "--quiet"))
        assert ended.returncode == 4, ended.stderr
        assert "rollouts" not in open_store(store).tables
        found = played(cli, store, server, *some)
        assert max(asked(server.requests).values()) == 1
    assert (found["questions"], found["rollouts"]) == (6, 6 * SAMPLES)
    assert len(rows(tmp_path / "store.rollouts" / "mine")) == 6 * SAMPLES


@pytest.mark.long
def test_policies_stand_beside_each_other_and_folders_grow(cli: Run, store: Path, tmp_path: Path) -> None:
    policy = ScriptedPolicy(store, SAMPLES)
    some = ("--split", "train", "-n")
    with policy.server() as server:
        played(cli, store, server, *some, "2", "--policy", "one")
        other = cli(*command(store, server, *some, "1", "--output", str(tmp_path / "two")), env=ENVIRONMENT)
        assert other.returncode == 0, other.stderr
        assert "note: pass rates are those of one; of this one: --set quality.policy=two" in other.stderr
        more = played(cli, store, server, *some, "3", "--policy", "one", "--set", "pick.teacher=one")
        asked_before = len(server.requests)
        assert played(cli, store, server, *some, "1", "--output", str(tmp_path / "two"))["policy"] == "two"
        assert len(server.requests) == asked_before
    counted = open_store(store).sql("SELECT policy, count(*) AS n FROM rollouts GROUP BY ALL ORDER BY ALL").to_pylist()
    assert counted == [{"policy": "one", "n": 6 * SAMPLES}, {"policy": "two", "n": 2 * SAMPLES}]
    assert more["rollouts"] == 6 * SAMPLES
    assert sum(each["rollouts"] for each in more["picks"]) == 6 * SAMPLES
    assert {each["failed"] for each in more["picks"]} <= {"", "answer", "best"}
    (store / "log" / "settings.json").unlink()  # as of a store from elsewhere
    with pytest.raises(ConfigError, match="the store keeps rollouts whose files are not known here"):
        plan_keeping(Store(store), tmp_path / "three", None, None, [])


@pytest.mark.long
def test_what_a_server_refuses_is_told_and_played_again(cli: Run, store: Path) -> None:
    policy = ScriptedPolicy(store, SAMPLES)
    some = ("--split", "train", "-n", "3")
    victims: list[str] = []  # the question that comes first, in one of its samples

    def answer(request: Row) -> str | Fault:
        question = request["messages"][0]["content"]
        if request.get("seed") == 1 and not victims:
            victims.append(question)
        return error(400, "content policy") if [question] == victims and request.get("seed") == 1 else policy(request)

    with LlmServer(answer) as server:
        done = cli(*command(store, server, *some), env=ENVIRONMENT)
        assert done.returncode == 3, done.stderr
        assert "1 rollouts were refused; the same command tries them again" in done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        assert ["kept", str(6 * SAMPLES - 1)] in lines
        assert ["rejected", "1", "the", "server", "refused"] in [line[:5] for line in lines]
        victims[:] = ["nobody"]
        before = len(server.requests)
        found = played(cli, store, server, *some)
        later = server.requests[before:]
    assert {each["seed"] for each in later} == {1}
    assert len({each["messages"][0]["content"] for each in later}) == 1
    assert (found["rollouts"], found["rejected"]) == (6 * SAMPLES, [])


NAMES = {
    "gpt-4o-mini": "gpt-4o-mini",
    "Qwen/Qwen2.5-7B-Instruct": "Qwen2.5-7B-Instruct",
    "ann/policy": "policy",
    "ann/policy@v1.0.0": "policy@v1.0.0",
    "runs/steppo": "steppo",
    "runs/steppo/": "steppo",
    "runs/steppo/checkpoint-000500": "steppo-checkpoint-000500",
    "runs/steppo/checkpoint-000500/policy": "steppo-checkpoint-000500",
}


@pytest.mark.parametrize(("model", "name"), NAMES.items())
def test_a_policy_has_the_name_of_its_model(model: str, name: str) -> None:
    assert name_policy(model) == name


def test_settings_of_who_plays_are_not_those_of_the_store(store: Path, tmp_path: Path) -> None:
    given = ["llm.base_url=http://127.0.0.1:1", "engines.use=['chargram']", "pick.gold=0.5"]
    keeping = plan_keeping(Store(store), tmp_path / "mine", None, None, given)
    assert keeping.settings == ("pick.gold=0.5", f'rollouts.policies=["mine={tmp_path}/mine"]')
    assert (keeping.policy, keeping.counted, keeping.untold) == ("mine", "", "")


def test_a_run_file_that_names_the_folder_keeps_it(store: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[rollouts]\npolicies = ["known=mine", "b=b"]\n')
    file = tmp_path / "run.toml"
    keeping = plan_keeping(Store(store), tmp_path / "mine", None, file, [])
    assert keeping.policies == (f"known={tmp_path}/mine", f"b={tmp_path}/b")
    assert (keeping.policy, keeping.counted, keeping.untold) == ("known", "known", 'under [quality] policy = "known"')
    other = plan_keeping(Store(store), tmp_path / "mine", "renamed", file, [])
    assert other.policies == (f"renamed={tmp_path}/mine", f"b={tmp_path}/b")
    file.write_text('[rollouts]\npolicies = ["b=b"]\n')
    new = plan_keeping(Store(store), tmp_path / "new", None, file, [])
    needed = f'under [rollouts] policies = ["b={tmp_path}/b", "new={tmp_path}/new"], and under [quality] policy = "b"'
    assert new.untold == needed


def keeps(store: Path, *policies: str, **sections: Row) -> None:
    """Have the store remember policies, without their tables."""
    settings = [f"rollouts.policies={json.dumps(policies)}"]
    settings += [f"{name}.{key}={value}" for name, section in sections.items() for key, value in section.items()]
    remember(Store(store), run_config(None, settings), STAGES)


def test_a_run_file_that_would_drop_policies_is_refused(store: Path, tmp_path: Path) -> None:
    keeps(store, f"one={tmp_path}/one", f"two={tmp_path}/two", quality={"policy": "two"})
    file = tmp_path / "run.toml"
    file.write_text("[llm]\nmax_concurrency = 2\n")
    with pytest.raises(
        ConfigError, match=r"the store keeps rollouts of one, two, which .*run\.toml does not name"
    ) as no:
        plan_keeping(Store(store), tmp_path / "new", None, file, [])
    line = f'policies = ["one={tmp_path}/one", "two={tmp_path}/two"]'
    assert no.value.hint == f"write into it, under [rollouts]: {line}"
    file.write_text(f"[rollouts]\n{line}\n")
    assert plan_keeping(Store(store), tmp_path / "new", None, file, []).counted == "two"


def test_a_copy_of_a_store_keeps_its_own_copies_of_rollouts(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store.rollouts" / "mine"
    folder.mkdir(parents=True)
    keeps(store, f"mine={folder}")
    shutil.copytree(store, tmp_path / "alone")
    copy = shutil.copytree(store, tmp_path / "copy")
    shutil.copytree(folder.parent, tmp_path / "copy.rollouts")
    own = tmp_path / "copy.rollouts" / "mine"
    assert plan_keeping(Store(copy), own, None, None, []).policies == (f"mine={own}",)
    assert recalled(tmp_path / "alone").settings["rollouts"] == {"policies": [f"mine={folder}"]}


def test_a_name_stands_for_one_folder(store: Path, tmp_path: Path) -> None:
    old = tmp_path / "old" / "rollouts.jsonl"
    keeps(store, f"mine={old.parent}", "other=o.jsonl")
    assert plan_keeping(Store(store), tmp_path / "mine", None, None, []).policies[0] == f"mine={tmp_path}/mine"
    old.parent.mkdir()
    old.touch()
    with pytest.raises(ConfigError, match="the store keeps rollouts of mine from another folder"):
        plan_keeping(Store(store), tmp_path / "mine", None, None, [])


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        ("a=b", [], "'a=b' cannot be the name of a policy"),
        ("..", [], "'..' cannot be the name of a policy"),
        ("a/b", [], "'a/b' cannot be the name of a policy"),
        (None, ["pick.teacher=ada"], "pick.teacher is ada, of which there are no rollouts"),
        (" ", [], "' ' cannot be the name of a policy"),
        ("a ", [], "'a ' cannot be the name of a policy"),
        ("漢" * 100, [], "cannot be the name of a policy"),
        (None, ["load.limit=3"], "--set load.limit=3: the questions that are played would change with it"),
        (None, ["quality.policy=ada"], "quality.policy is ada, of which there are no rollouts"),
    ],
)
def test_what_could_not_be_kept_is_refused_before_it_is_played(
    policy: str | None, settings: list[str], message: str, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_keeping(Store(store), tmp_path / "mine", policy, None, settings)


DEAD = ("--llm", "org/mine", "--base-url", "http://127.0.0.1:9/v1", "--set", "llm.max_attempts=1")


def test_what_the_build_will_refuse_is_told_before_anything_is_played(cli: Run, store: Path, tmp_path: Path) -> None:
    run = partial(cli, "rollouts", *DEAD, "--store", store)
    keeps(store, f"gone={tmp_path}/gone")
    refused = run("--dry-run")
    assert (refused.returncode, "cannot read" in refused.stderr) == (1, True), refused.stderr
    keeps(store)
    inside = run("--output", store / "mine")
    assert f"cannot write {store / 'mine'}: it lies in the store" in inside.stderr
    cli("build", "--store", store, "--to", "verify", "--set", "load.limit=3")
    stale = run()
    assert "rollouts reads questions, which is out of date" in stale.stderr, stale.stderr
    assert "hint: build it first: stepsearch-data build --from" in stale.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


@pytest.mark.long
def test_a_policy_that_a_server_refused_is_no_fault_of_later_builds(cli: Run, store: Path) -> None:
    with LlmServer(lambda _: error(400, "content policy")) as server:
        done = cli(*command(store, server, "--split", "train", "-n", "1"), env=ENVIRONMENT)
    assert done.returncode == 3, done.stderr
    assert f"{2 * SAMPLES} rollouts were refused; the same command tries them again" in done.stderr


@pytest.mark.long
def test_a_policy_whose_rows_are_rejected_is_not_remembered(cli: Run, store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "rollouts.jsonl").write_text('{"id": "nobody"}\n')
    keeping = plan_keeping(Store(store), folder, None, None, [])
    opened = Store(store)
    with opened.locked(), pytest.raises(StepSearchError, match="1 of 1 rows of mine were rejected"):
        keep(keeping, opened, None, Reporter(quiet=True), print)
    assert "rollouts" not in recalled(store).settings


@pytest.mark.long
def test_a_policy_that_another_command_adds_meanwhile_stays(cli: Run, store: Path, tmp_path: Path) -> None:
    policy = ScriptedPolicy(store, SAMPLES)
    added: list[int] = []

    def answer(request: Row) -> str | Fault:
        if not added:
            added.append(1)
            played(cli, store, others, "--split", "train", "-n", "1", "--policy", "other")
        return policy(request)

    with policy.server() as others, LlmServer(answer) as server:
        played(cli, store, server, "--split", "train", "-n", "1")
    names = open_store(store).sql("SELECT DISTINCT policy FROM rollouts ORDER BY ALL").to_pylist()
    assert [row["policy"] for row in names] == ["mine", "other"]


def test_a_run_file_names_the_store_of_a_checkpoint(cli: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "checkpoint-1"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run.parent / RECIPE).write_text(json.dumps({"store": f"{tmp_path}/another", "model": {"path": "m"}}))
    (tmp_path / "run.toml").write_text(f'store = "{store}"\n')
    told = cli("rollouts", run, "--config", tmp_path / "run.toml", "--dry-run", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["store"] == str(store)

"""Many samples of each question: played, killed, played on, kept in the store, and made into a curriculum."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stepsearch_data.api import Store
from stepsearch_data.api import open as open_store
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.intervals import Passes
from stepsearch_data.remote.cache import WINDOW_REPLIES
from tests.conftest import Run
from tests.evaluation.policies import ENVIRONMENT, ScriptedPolicy, asked, rows, world


def command(store: Path, url: str, output: Path, samples: int, *more: str) -> list[str]:
    served = ["--llm", "mock", "--base-url", url, "--temperature", "1", "--samples", str(samples), *more]
    chosen = ["--store", str(store), "--split", "train", "--output", str(output), "--json", "--quiet"]
    return [sys.executable, "-m", "stepsearch_data", "eval", *served, *chosen]


@pytest.mark.long
@pytest.mark.parametrize(("questions", "samples"), [(12, 4), (210, 8)], ids=["few", "many"])
def test_samples_are_played_once_counted_and_made_a_curriculum(
    cli: Run, tmp_path: Path, questions: int, samples: int
) -> None:
    store = world(cli, tmp_path, questions)
    policy, output = ScriptedPolicy(store, samples), tmp_path / "evals"
    whole = len(policy.passes()) * samples
    with policy.server() as server:
        run = partial(subprocess.run, capture_output=True, text=True, check=False, env=ENVIRONMENT)
        process = subprocess.Popen(command(store, server.url, output, samples, "--batch", "16"), env=ENVIRONMENT)
        while not ((output / "rollouts.jsonl").exists() and len(rows(output)) > whole // 3):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = {(row["prompt"].strip(), row["sample"] - 1) for row in rows(output)}
        assert 0 < len(kept) < whole
        earlier = len(server.requests)
        done = run(command(store, server.url, output, samples, "--batch", "16"))
        assert done.returncode == 0, done.stderr
        needed = len(server.requests)
        played = [(each["messages"][0]["content"], each.get("seed") or 0) for each in server.requests]
        assert kept <= set(played[:earlier])
        assert not kept & set(played[earlier:])
        # Of unfinished rollouts, replies are asked for again that were on their way or in the cache's last window.
        assert needed - len(asked(server.requests)) < WINDOW_REPLIES + 16
        again = run(command(store, server.url, output, samples, "--batch", "16"))
        assert json.loads(again.stdout)["all"] == json.loads(done.stdout)["all"]
        assert len(server.requests) == needed
    found = Counter(row["id"] for row in rows(output) if row["em"])
    assert {name: found[name] for name in policy.passes()} == policy.passes()
    assert len({(row["id"], row["sample"]) for row in rows(output)}) == len(rows(output)) == whole
    measures = json.loads(done.stdout)["all"]["all"]
    assert (measures["questions"], measures["rollouts"]) == (len(policy.passes()), whole)
    assert measures["em"] == pytest.approx(sum(found.values()) / whole)
    assert measures["solved"] == sum(map(bool, found.values())) / len(policy.passes())

    before = {name: path.read_bytes() for name, path in tables(store).items()}
    built = cli("build", "--store", store, "--set", f'rollouts.policies=["mine={output}"]', "--quiet")
    assert built.returncode == 0, built.stderr
    opened = open_store(store)
    assert opened.tables["rollouts"] == whole
    assert {
        name: path.read_bytes() for name, path in tables(store).items() if name in before and name != "quality"
    } == {name: data for name, data in before.items() if name != "quality"}
    rates = {row["question_id"]: row["pass_rate"] for row in opened.sql("SELECT * FROM quality").to_pylist()}
    assert rates == {name: right / samples for name, right in policy.passes().items()}
    turns = opened.sql("SELECT count(*) AS n, sum(new_gold) AS gold FROM rollout_turns").to_pylist()[0]
    assert turns["n"] == sum(len(row["searches"]) for row in rows(output))
    assert turns["gold"] == sum(len({at for one in row["searches"] for at in one["gold"]}) for row in rows(output))

    some = check_curriculum(opened, policy, samples, tmp_path)
    gated = cli("build", "--store", store, "--set", "quality.pass_rate=[0.2, 0.8]", "--quiet")
    assert gated.returncode == 0, gated.stderr
    assert opened.sql("SELECT count(*) AS n FROM quality WHERE passed").to_pylist() == [{"n": some}]

    check_taught(cli, opened, policy, samples, tmp_path)


def check_curriculum(opened: Store, policy: ScriptedPolicy, samples: int, folder: Path) -> int:
    """Every question has the pass rate, and the band, of the script; return how many are in a range."""
    opened.export("curriculum", folder / "all")
    listed = pq.read_table(folder / "all" / "train.parquet").to_pylist()
    for row in listed:
        passes = Passes(policy.passes()[row["question_id"]], samples)
        assert (row["right"], row["rollouts"], row["pass_rate"], row["band"]) == (*passes, passes.rate, passes.band)
        assert row["pass_rate_low"] < row["pass_rate"] + 1e-9
        assert row["pass_rate_high"] > row["pass_rate"] - 1e-9
    assert len(listed) == len(policy.passes())
    opened.export("verl", folder / "some", pass_rate="0.2-0.8")
    some: int = pq.read_metadata(folder / "some" / "train.parquet").num_rows
    assert some == sum(0.2 <= right / samples <= 0.8 for right in policy.passes().values())
    return some


def check_taught(cli: Run, opened: Store, policy: ScriptedPolicy, samples: int, folder: Path) -> None:
    """The policy is a teacher: one right rollout of a question is taken, and set against a wrong one."""
    picked = cli(
        "build", "--store", opened.path, "--set", "quality.pass_rate=default", "--set", "pick.teacher=mine", "--quiet"
    )
    assert picked.returncode == 0, picked.stderr
    counted = opened.sql("SELECT failed, count(*) AS n FROM picks GROUP BY ALL").to_pylist()
    right, some = sum(policy.passes().values()), sum(map(bool, policy.passes().values()))
    both = sum(0 < passes < samples for passes in policy.passes().values())
    assert {row["failed"]: row["n"] for row in counted} == {
        "": some,
        "best": right - some,
        "answer": samples * len(policy.passes()) - right,
    }
    assert opened.tables["preferences"] == both
    opened.export("trl-sft", folder / "taught", origin="teacher")
    opened.export("trl-sft", folder / "gold")
    opened.export("trl-dpo", folder / "dpo", origin="teacher")
    taught, gold, dpo = (
        pq.read_table(folder / name / "train.parquet").to_pylist() for name in ("taught", "gold", "dpo")
    )
    # This teacher does as the gold trajectories do, and is shown the same documents.
    assert {(row["prompt"], row["completion"]) for row in taught} <= {
        (row["prompt"], row["completion"]) for row in gold
    }
    assert sum("<answer>" in row["completion"] for row in taught) == some
    assert len(dpo) == both
    assert {(row["prompt"], row["chosen"]) for row in dpo} <= {(row["prompt"], row["completion"]) for row in taught}
    assert all("nobody knows" in row["rejected"] for row in dpo)


def tables(store: Path) -> dict[str, Path]:
    return {path.stem: path for path in store.glob("stages/*/*.parquet") if path.stem != "rejects"}


def test_more_samples_add_to_the_folder(cli: Run, sample_store: Path, tmp_path: Path) -> None:
    policy, output = ScriptedPolicy(sample_store, 3), tmp_path / "evals"
    with policy.server() as server:
        dry = cli(*command(sample_store, server.url, output, 3, "-n", "2", "--dry-run")[3:], env=ENVIRONMENT)
        assert json.loads(dry.stdout)["rollouts"] == 3 * 4
        assert (json.loads(dry.stdout)["turns_at_most"], server.requests) == (3 * 4 * 6, [])
        assert not output.exists()
        for samples in (1, 3):
            done = cli(*command(sample_store, server.url, output, samples, "-n", "2")[3:], env=ENVIRONMENT)
            assert done.returncode == 0, done.stderr
            assert Counter(row["sample"] for row in rows(output)) == dict.fromkeys(range(1, samples + 1), 4)
        assert max(asked(server.requests).values()) == 1
        prices = ("--set", "llm.prices={mock = [1.0, 2.0]}")
        dry = cli(*command(sample_store, server.url, output, 4, "-n", "2", "--dry-run", *prices)[3:], env=ENVIRONMENT)
    assert json.loads((output / "settings.json").read_text())["samples"] == 3
    assert json.loads(dry.stdout) == {
        "questions": 4,
        "rollouts": 16,
        "there": 12,
        "turns_at_most": 4 * 6,
        "completion_tokens_at_most": 4 * 6 * 500,
        "cost_at_most": pytest.approx(4 * 6 * (4096 + 2 * 500) / 1e6),
    }


@pytest.mark.long
def test_builds_between_evaluations_cost_no_rollout(cli: Run, tmp_path: Path) -> None:
    """More samples, or more questions, of a store that has been built again: by a gate, or with rollouts."""
    store, output = world(cli, tmp_path, 8), tmp_path / "evals"
    policy = ScriptedPolicy(store, 2)
    kept = f'rollouts.policies=["mine={output}"]'
    with policy.server() as server:
        for samples, setting in ((2, kept), (3, "quality.pass_rate=[0.2, 0.8]"), (4, kept)):
            done = cli(*command(store, server.url, output, samples)[3:], env=ENVIRONMENT)
            assert done.returncode == 0, done.stderr
            built = cli("build", "--store", store, "--set", kept, "--set", setting, "--quiet")
            assert built.returncode == 0, built.stderr
        assert max(asked(server.requests).values()) == 1
    played = Counter(row["id"] for row in rows(output))
    assert played == {name: 4 if right else 3 for name, right in policy.passes().items()}


def test_a_rehearsal_counts_what_will_not_be_asked(cli: Run, sample_store: Path, tmp_path: Path) -> None:
    policy, output = ScriptedPolicy(sample_store, 3), tmp_path / "evals"
    with policy.server() as server:
        run = partial(cli, env=ENVIRONMENT)
        assert run(*command(sample_store, server.url, output, 2, "-n", "2")[3:]).returncode == 0
        before = {path: path.read_bytes() for path in output.iterdir()}
        for samples, limit, there in ((1, "1", 2), (2, "3", 8), (3, "1", 4)):
            dry = run(*command(sample_store, server.url, output, samples, "-n", limit, "--dry-run")[3:])
            assert json.loads(dry.stdout)["there"] == there
        other = run(*command(sample_store, server.url, output, 2, "-n", "2", "--seed", "5", "--dry-run")[3:])
        assert (other.returncode, other.stderr.partition(": seed")[0]) == (
            2,
            f"error: {output} holds another evaluation",
        )
        assert before == {path: path.read_bytes() for path in output.iterdir()}


def test_samples_without_a_temperature_would_be_alike() -> None:
    from stepsearch_data.evaluation.setup import Options, set_up

    with pytest.raises(ConfigError, match="8 samples at temperature 0 are one and the same"):
        set_up(Options(llm="mock", samples=8))

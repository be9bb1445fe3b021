"""The loop: it learns, stops where it must, and goes on where it stopped."""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import orjson
import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from stepsearch_data.core.errors import ConfigError, SearchError, TrainError
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.causal_lm import trunk_of
from stepsearch_data.trainer.config import PPOConfig, Schedule
from stepsearch_data.trainer.model import Critic
from stepsearch_data.trainer.run_folder import Best
from stepsearch_data.trainer.sampler import CachedSampler, ReportingSampler
from stepsearch_data.trainer.search_env import Episode
from stepsearch_data.trainer.steppo_trainer import StePPOTrainer
from tests.trainer.processes import torchrun
from tests.trainer.tiny import TASKS, retrieve

Make = Callable[..., StePPOTrainer]
QUICK = {
    "num_updates": 6,
    "rollout_batch_size": 8,
    "learning_rate": 1e-3,
    "vf_learning_rate": 1e-3,
    "save_steps": 2,
    "eval_steps": 3,
    "save_total_limit": 9,
}


@pytest.fixture
def policy(policy: Any, tokenizer: Any) -> Any:
    """One that has seen how searching is written: with random weights hardly a rollout would search."""
    texts = [f"{task.prompt} <search> capital of {task.support_docs[0].title} </search>" for task in TASKS]
    rows = tokenizer(texts, return_tensors="pt", return_token_type_ids=False)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(25):
        policy(**rows, labels=rows["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return policy


def learn_answers(policy: Any, tokenizer: Any) -> None:
    """Teach the policy to answer without a search; a few updates later it has some answers right, for a while."""
    texts = [f"{task.prompt} <answer> {task.answers[0]} </answer>" for task in TASKS]
    rows = tokenizer(texts, return_tensors="pt", return_token_type_ids=False, padding=True)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(12):
        policy(**rows, labels=rows["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def trainer(
    output: Path,
    policy: Any,
    tokenizer: Any,
    env: Any,
    search: Any = retrieve,
    *,
    group_size: int = 1,
    sampler: Any = None,
    answer_gain: float = 0.0,
    step_until: int = 0,
    **schedule: Any,
) -> StePPOTrainer:
    torch.manual_seed(4)
    ppo = PPOConfig(mini_batch_size=4, micro_batch_size=2, group_size=group_size)
    critic = Critic(trunk_of(AutoModelForCausalLM.from_config(policy.config))) if ppo.has_critic else None
    return StePPOTrainer(
        policy, critic, tokenizer, env, search, TASKS, output, held_out=TASKS,
        schedule=Schedule(**{**QUICK, **schedule}), ppo=ppo, accelerator=Accelerator(cpu=True),
        answer_gain=answer_gain, step_until=step_until, sampler=sampler,
    )  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, policy: Any, tokenizer: Any, env: Any) -> Make:
    """Makes a trainer in a folder, of its own copy of the policy."""

    def made(output: Path = tmp_path, search: Any = retrieve, **options: Any) -> StePPOTrainer:
        return trainer(output, copy.deepcopy(policy), tokenizer, env, search, **options)

    return made


def metrics(output: Path) -> list[dict[str, float]]:
    """What was recorded, times left out."""
    rows = [orjson.loads(line) for line in (output / "metrics.jsonl").read_bytes().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def test_metrics_and_checkpoints_are_written(make: Make, tmp_path: Path) -> None:
    make().train()
    rows = metrics(tmp_path)
    assert [row["update"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["update"] for row in rows if "eval_em" in row] == [0, 3, 6]
    best = json.loads((tmp_path / "best.json").read_text())["update"]
    kept = sorted({2, 4, 6, best, 3})  # the first after training began is the best so far
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [f"checkpoint-{n:06}" for n in kept]
    assert not list(tmp_path.glob(".*"))


def test_all_callbacks_are_told_the_same(make: Make) -> None:
    seen: list[float] = []
    training = make()
    training.callbacks = [lambda metrics, *_: seen.append(metrics["update"]), lambda *of: seen.append(len(of[1]))]
    training._report({"update": 7}, [Episode(TASKS[0], [])] * 2, [])
    assert seen == [7, 2]


def test_exact_match_is_told_by_hops_where_they_are_known(make: Make) -> None:
    training = make()
    assert not [name for name in training.evaluate() if "hops" in name]
    training.held_out = [replace(task, hops=2 + at % 2) for at, task in enumerate(TASKS * 3)]
    told = training.evaluate()
    assert told["eval_em"] == pytest.approx((told["eval_em_2_hops"] + told["eval_em_3_hops"]) / 2)
    training.held_out = [replace(TASKS[0], hops=2), *TASKS[1:]]
    alone = training.evaluate()["eval_em_2_hops"]
    training.held_out = TASKS[:1]
    assert alone == training.evaluate()["eval_em"]


def test_step_rewards_are_annealed_by_the_updates_done(make: Make, tmp_path: Path) -> None:
    """What is left after the last of them is the score, in a resumed run too."""
    training = make(step_until=2)
    whole, half = (sum(each.total - each.scores.score for each in training.training_step()[2]) for _ in range(2))
    assert whole != 0 != half
    assert sum(each.total - each.scores.score for each in training.training_step()[2]) == 0


def test_old_checkpoints_are_removed_but_the_best(make: Make, tmp_path: Path) -> None:
    run = make(save_total_limit=1, eval_steps=2)
    run.train()
    assert run.best
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {run.best.checkpoint, "checkpoint-000006"}
    assert Best.model_validate_json((tmp_path / "best.json").read_bytes()) == run.best


def test_nothing_held_out_has_no_best(make: Make, tmp_path: Path) -> None:
    run = make(save_total_limit=1, num_updates=2, early_stop=1, eval_steps=0)
    run.train()
    assert (run.best, run.updates_done) == (None, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-000002", "metrics.jsonl"}


@pytest.mark.parametrize(
    ("ems", "best", "stalled"),
    [
        ((0.5,), None, False),
        ((0.5, 0.5), 1, False),
        ((0.5, 0.2, 0.3), 2, True),  # the start counts, but has no checkpoint
        ((0.1, 0.2, 0.2, 0.1), 1, True),  # equal is not better, and the first of equals is the best
        ((0.1, 0.2, 0.1, 0.3), 3, False),
    ],
)
def test_the_best_and_when_nothing_better_comes(
    make: Make, ems: tuple[float, ...], best: int | None, stalled: bool
) -> None:
    run = make(early_stop=2)
    run.evaluations = [Best(update=at, eval_em=em) for at, em in enumerate(ems)]
    assert (run.best.update if run.best else None, run.stalled) == (best, stalled)
    run.schedule = replace(run.schedule, early_stop=0)
    assert not run.stalled


def test_a_stopped_run_goes_on_where_it_no_longer_stops_early(make: Make, tmp_path: Path) -> None:
    stopping = {"eval_steps": 1, "early_stop": 1, "learning_rate": 0.0}
    make(**stopping).train()
    assert [row["update"] for row in metrics(tmp_path)] == [0, 1]
    again = make(**stopping)
    again.resume()
    again.train()
    assert [row["update"] for row in metrics(tmp_path)] == [0, 1]
    further = make(**stopping | {"early_stop": 0})
    further.resume()
    further.train()
    assert [row["update"] for row in metrics(tmp_path)] == [*range(7)]


@pytest.mark.parametrize(
    "beyond",
    [
        {},
        {"answer_gain": 1.0, "step_until": 5},
        {"overlap": True},
        {"async_search": True},
        {"group_size": 4},
        {"group_size": 8, "overlap": True, "answer_gain": 1.0},
    ],
    ids=["paper", "beyond", "overlap", "async search", "no critic", "no critic, overlap and beyond"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(make: Make, tmp_path: Path, beyond: dict[str, Any]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make(whole, **beyond).train()
    first = make(parts, **beyond)
    parts.mkdir()
    for _ in range(2):
        first._report(*first.training_step())
    first.save()
    first._report(*first.training_step())  # lost with the crash
    torch.manual_seed(random.randrange(10_000))
    second = make(parts, **beyond)
    assert second.resume()
    assert second.updates_done == 2
    second.train()
    assert metrics(parts) == [row for row in metrics(whole) if row["update"] > 0]


def test_a_retriever_that_goes_down_leaves_a_checkpoint_to_go_on_from(make: Make, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    make(whole).train()

    def fragile(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        if list(broken.glob("checkpoint-*")):
            raise SearchError("the engine is down")
        return retrieve(queries, k)

    run = make(broken, fragile)
    with pytest.raises(SearchError):
        run.train()
    again = make(broken)
    assert again.resume()
    assert again.updates_done == run.updates_done
    again.train()
    assert metrics(broken) == metrics(whole)


def test_half_a_line_of_metrics_is_forgotten(make: Make, tmp_path: Path) -> None:
    """As a full disk may leave it."""
    run = make(num_updates=2)
    run.train()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"update": 2, "rew')
    run.schedule = replace(run.schedule, num_updates=3)
    run.train()
    assert [row["update"] for row in metrics(tmp_path)] == [0, 1, 2, 3]


def test_where_one_process_fails_all_end_and_go_on_together(tmp_path: Path, policy: Any, tokenizer: Any) -> None:
    policy.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    arguments = (Path(__file__).with_name("run.py"), tmp_path / "start", tmp_path / "run", "{}")
    failed = torchrun(2, *arguments, "1")
    assert failed.returncode != 0
    assert "SearchError: the engine of process 1 is down" in failed.stderr
    assert "TrainError: rollouts failed in another process" in failed.stderr
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-000002"]
    assert torchrun(2, *arguments).returncode == 0
    assert [row["update"] for row in metrics(tmp_path / "run")] == [0, 1, 2, 3, 4, 5, 6]


def test_with_overlap_a_batch_is_written_by_the_policy_before_the_last_update(make: Make) -> None:
    run, plain = make(overlap=True), make()
    told = [run.training_step()[0] for _ in range(6)]
    assert told[0]["sampling_logp_difference"] < 1e-5  # the first batch: nothing is learnt before it
    assert all(each["sampling_logp_difference"] > 1e-4 for each in told[1:])
    assert "sampling_logp_difference" not in plain.training_step()[0]


def test_with_overlap_a_batch_that_failed_is_rolled_out_again(make: Make, tmp_path: Path) -> None:
    def fragile(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        if list(tmp_path.glob("checkpoint-*")):
            raise SearchError("the engine is down")
        return retrieve(queries, k)

    run = make(search=fragile, overlap=True)
    with pytest.raises(SearchError):
        run.train()
    again = make(overlap=True)
    assert again.resume()
    again.train()
    assert [row["update"] for row in metrics(tmp_path)] == [0, 1, 2, 3, 4, 5, 6]


def test_with_overlap_no_batch_goes_on_when_a_training_ends_early(make: Make) -> None:
    """A callback ends it; the batch that is then being rolled out ends with its next search."""
    ended, asked = Event(), list[bool]()

    def search(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        asked.append(ended.is_set())
        time.sleep(0.2)
        return retrieve(queries, k)

    def fail(*_: Any) -> None:
        raise TrainError("no more")

    run = make(search=search, overlap=True, eval_steps=0)
    run.callbacks = [fail]
    with pytest.raises(TrainError, match="no more"):
        run.train()
    ended.set()
    time.sleep(0.5)
    assert asked
    assert not any(asked)


STOPPING = {"num_updates": 12, "eval_steps": 1, "early_stop": 5, "save_total_limit": 1, "learning_rate": 1e-2}


@pytest.mark.parametrize(
    "schedule",
    [
        {},
        STOPPING,
        pytest.param({"overlap": True}, marks=pytest.mark.long),
        pytest.param({"group_size": 4}, marks=pytest.mark.long),
    ],
    ids=["all updates", "early stop", "overlap", "no critic"],
)
def test_kill_and_resume(tmp_path: Path, policy: Any, tokenizer: Any, schedule: dict[str, float]) -> None:
    """Kill -9 at a random moment, twice; in the end the metrics are those of a run that nobody disturbed.

    So are the update that an early stop ends it at, and the checkpoints that are kept.
    """
    if schedule:
        learn_answers(policy, tokenizer)
    policy.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    program = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("run.py")), str(tmp_path / "start")]

    def start(output: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen([*program, str(tmp_path / output), json.dumps(schedule)], env=environment)

    def names(output: str) -> set[str]:
        return {path.name for path in (tmp_path / output).glob("checkpoint-*")}

    assert start("whole").wait() == 0
    for _ in range(2):
        running, before = start("killed"), names("killed")
        while running.poll() is None and not names("killed") - before:
            time.sleep(0.01)
        with_luck = random.random() * 0.3
        try:
            running.wait(with_luck)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
    assert start("killed").wait() == 0
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert names("killed") == names("whole")
    assert json.loads((tmp_path / "whole" / "best.json").read_text())["update"] in {
        row["update"] for row in metrics(tmp_path / "whole") if "eval_em" in row
    }
    if schedule:
        assert len(metrics(tmp_path / "whole")) < 13
        assert (tmp_path / "killed" / "best.json").read_bytes() == (tmp_path / "whole" / "best.json").read_bytes()


def test_only_in_float32_is_the_policy_not_read_again(make: Make, policy: Any) -> None:
    """Elsewhere what turns made of a text is too far from what is learnt from."""
    assert type(make().sampler) is ReportingSampler
    policy.bfloat16()
    assert type(make().sampler) is CachedSampler


@pytest.mark.parametrize("group_size", [1, pytest.param(8, marks=pytest.mark.long)])
def test_the_policy_learns_what_is_rewarded(make: Make, tmp_path: Path, group_size: int) -> None:
    """From random weights the reference preset's −1 for a wrong format can only be escaped by ending in an answer."""
    from stepsearch_data.rewards import REFERENCE

    run = make(
        num_updates=40, rollout_batch_size=64, learning_rate=5e-3, group_size=group_size,
        vf_learning_rate=5e-3, eval_steps=0, save_steps=0, warmup_ratio=0.0,
    )  # fmt: skip
    run.rewards = REFERENCE
    run.train()
    rewards = [row["reward"] for row in metrics(tmp_path)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3


def test_every_epoch_goes_through_all_tasks_in_another_order(make: Make) -> None:
    run = make(rollout_batch_size=4)
    orders = [[task.id for task in run._tasks_of(update)] for update in range(8)]
    assert all(sorted(order) == sorted(task.id for task in TASKS) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_an_update_takes_each_question_of_it_as_often_as_a_group_has_rollouts(make: Make) -> None:
    run = make(rollout_batch_size=8, group_size=4)
    updates = [[task.id for task in run._tasks_of(update)] for update in range(4)]
    asked = [ids[::4] for ids in updates]
    assert updates == [[first] * 4 + [second] * 4 for first, second in asked]
    epochs = [*asked[0], *asked[1]], [*asked[2], *asked[3]]
    assert [sorted(epoch) for epoch in epochs] == [sorted(task.id for task in TASKS)] * 2


def test_without_a_critic_the_policy_alone_is_trained_and_told_of(make: Make, tmp_path: Path) -> None:
    run, with_critic = make(tmp_path / "group", group_size=4), make(tmp_path / "critic")
    assert run.inner.critic is None
    policy = {name for name, _ in with_critic.inner.named_parameters() if name.startswith("policy.")}
    assert {name for name, _ in run.inner.named_parameters()} == policy
    assert sum(len(each["params"]) for each in run.optimizer.param_groups) == len(list(run.inner.policy.parameters()))
    before = copy.deepcopy(run.inner.policy.state_dict())
    run.train()
    assert any(not torch.equal(before[name], now) for name, now in run.inner.policy.state_dict().items())
    gone = {"value_loss", "explained_variance", "critic_grad_norm"}
    assert with_critic.training_step()[0].keys() - run.training_step()[0].keys() == gone


def test_a_critic_and_groups_exclude_each_other(make: Make) -> None:
    run = make()
    given = (run.tokenizer, run.env, retrieve, TASKS, run.output)
    for critic, size in ((run.inner.critic, 4), (None, 1)):
        with pytest.raises(ConfigError, match="there is no critic"):
            StePPOTrainer(
                run.inner.policy, critic, *given, schedule=run.schedule, ppo=replace(run.ppo, group_size=size)
            )


def test_sizes_that_do_not_fit_are_refused(make: Make) -> None:
    with pytest.raises(TrainError, match="7 rollouts"):
        make(rollout_batch_size=7)
    with pytest.raises(TrainError, match="8 rollouts cannot be cut into groups of 3 on 1 processes"):
        make(group_size=3)


def test_overlap_needs_a_sampler_with_weights_of_its_own(make: Make) -> None:
    run = make()
    with pytest.raises(ConfigError, match="weights of its own"):
        StePPOTrainer(
            run.inner.policy, run.inner.critic, run.tokenizer, run.env, retrieve, TASKS, run.output,
            schedule=replace(run.schedule, overlap=True),
            ppo=run.ppo, accelerator=run.accelerator, sampler=run.sampler,
        )  # fmt: skip

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

accelerate = pytest.importorskip("accelerate", reason="needs torch: make test-train")

from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.callbacks.trackers import (
    COLUMNS,
    grouped,
    rollout_rows,
    tracker_callback,
    tracker_options,
)
from stepsearch_data.trainer.characters import decode, encode
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.episode_score import EpisodeScore, score_episode
from stepsearch_data.trainer.search_env import Episode, SearchEnv
from tests.trainer.tiny import PARAGRAPHS, TASKS


def test_metrics_reach_tensorboard_by_groups(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own
        events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accelerator = accelerate.Accelerator(cpu=True, **tracker_options("tensorboard", tmp_path))
    with tracker_callback(
        accelerator, {"ppo.kl_coef": 0.001, "rewards": "paper", "seeds": (1, 2)}, "steppo-1"
    ) as watch:
        for update in (1, 2):
            watch({"update": update, "reward": update / 4, "eval_em": 0.5, "seconds_rollout": 2.0}, [], [])
    read = events.EventAccumulator(str(tmp_path / "stepsearch"))
    read.Reload()
    assert {"train/reward", "eval/em", "seconds/rollout"} <= set(read.Tags()["scalars"])
    assert [(each.step, each.value) for each in read.Scalars("train/reward")] == [(1, 0.25), (2, 0.5)]
    assert (next(tmp_path.rglob("hparams.yml"))).read_text().split("\n")[0] == "ppo.kl_coef: 0.001"


def test_none_reports_to_nothing(tmp_path: Path) -> None:
    accelerator = accelerate.Accelerator(cpu=True, **tracker_options("none", tmp_path))
    with tracker_callback(accelerator, {}, "run") as watch:
        watch({"update": 1, "reward": 0.5}, [], [])
    assert not [*tmp_path.iterdir()]


def test_what_is_no_number_is_not_reported() -> None:
    metrics = {"update": 3, "kl": math.nan, "eval_f1": 0.5, "seconds_score": 1.0, "em": math.inf, "reward": 1.0}
    assert grouped(metrics) == {"eval/f1": 0.5, "seconds/score": 1.0, "train/reward": 1.0}


def test_unknown_and_missing_trackers_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="report_to mlflow is unknown") as error:
        tracker_options("mlflow", tmp_path)
    assert error.value.hint == "one of tensorboard, trackio, wandb, none"
    for name in ("wandb", "trackio"):
        if not find_spec(name):
            with pytest.raises(ConfigError, match=f"report_to {name}: it is not installed"):
                tracker_options(name, tmp_path)


def test_a_tracker_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which shows no key, whatever the tracker says."""
    key = "0123456789abcdefNobodyMaySeeThis"
    monkeypatch.setenv("WANDB_API_KEY", key)
    accelerator = accelerate.Accelerator(cpu=True, **tracker_options("tensorboard", tmp_path / key))
    (tmp_path / key).unlink(missing_ok=True)
    (tmp_path / key).write_text("in the way")
    refused = pytest.raises(TrainError, match="the tracker does not start")
    with refused as error, tracker_callback(accelerator, {}, "run"):
        pass
    assert key not in str(error.value)


@pytest.fixture
def played(template: Template) -> tuple[list[Episode], list[EpisodeScore]]:
    """A rollout that searches and answers, and eleven that have hardly begun."""
    env = SearchEnv(template, Limits(), encode, decode, frozenset())
    episode = env.reset(TASKS[0])
    query = env.step(episode, env.encode("<think>|</think>\n<search> capital France </search>"))
    assert query
    env.observe(episode, query, PARAGRAPHS[:1])
    env.step(episode, env.encode("<answer> Paris </answer>"))
    episodes = [episode, *(env.reset(task) for task in TASKS[1:]), *(env.reset(TASKS[0]) for _ in range(8))]
    return episodes, [score_episode(each) for each in episodes]


def test_a_row_has_the_texts_and_what_each_turn_earned(played: tuple[list[Episode], list[EpisodeScore]]) -> None:
    row, second, *_ = ([*each] for each in rollout_rows(*played))
    told = dict(zip(COLUMNS, row, strict=True))
    (episode, *_), (scored, *_) = played
    assert told["prompt"] == TASKS[0].prompt
    assert told["response"] == episode.text
    assert told["rewards of its turns"] == f"{scored.token_rewards[0][1]:+.3f}"
    assert told["reward"] == pytest.approx(scored.total, abs=1e-3)
    assert told["score"] == pytest.approx(scored.token_rewards[-1][1], abs=1e-3)
    assert (told["answers"], told["EM"], told["ended by"]) == ("Paris", 1, "answer")
    assert second[2:] == ["Rome", "", 0.0, 0.0, 0, ""]  # nothing was written that could earn


def report(name: str, folder: Path, played: tuple[list[Episode], list[EpisodeScore]]) -> None:
    """Four updates, of which every second one sends rollouts."""
    accelerator = accelerate.Accelerator(cpu=True, **tracker_options(name, folder))
    with tracker_callback(accelerator, {"rewards": "paper"}, "steppo-1", rollouts_every=2) as watch:
        watch({"update": 0, "eval_em": 0.5}, [], [])
        for update in (1, 2, 3, 4):
            watch({"update": update, "reward": update / 4}, *played)


def test_tensorboard_shows_rollouts_as_a_table(
    tmp_path: Path, played: tuple[list[Episode], list[EpisodeScore]]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own
        events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    report("tensorboard", tmp_path, played)
    read = events.EventAccumulator(str(tmp_path / "stepsearch"))
    read.Reload()
    assert [each.step for each in read.Tensors("rollouts/text_summary")] == [2, 4]
    table = read.Tensors("rollouts/text_summary")[0].tensor_proto.string_val[0].decode()
    lines = table.splitlines()
    assert len(lines) == 2 + 8
    assert all(line.count("|") == len(COLUMNS) + 1 for line in lines)
    assert "&lt;think&gt;&#124;&lt;/think&gt;<br>&lt;search&gt; capital France &lt;/search&gt;" in lines[2]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Trackers that write to a folder, and to no server."""
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_DIR": tmp_path,
        "WANDB_SILENT": "true",
        "HOME": tmp_path,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        yield tmp_path


@pytest.mark.skipif(not find_spec("wandb"), reason="needs wandb, which is in no extra: pip install wandb")
def test_wandb_gets_rollouts_as_a_table(offline: Path, played: tuple[list[Episode], list[EpisodeScore]]) -> None:
    report("wandb", offline, played)
    tables = [json.loads(file.read_text()) for file in offline.rglob("*.table.json")]
    assert len(tables) == 2
    assert [each["columns"] for each in tables] == [[*COLUMNS]] * 2
    assert {len(each["data"]) for each in tables} == {8}
    assert tables[0]["data"][0][1] == played[0][0].text


@pytest.mark.skipif(not find_spec("trackio"), reason="needs trackio, which is in no extra: pip install trackio")
def test_trackio_gets_rollouts_as_a_table(
    offline: Path, played: tuple[list[Episode], list[EpisodeScore]], capsys: pytest.CaptureFixture[str]
) -> None:
    report("trackio", offline, played)
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("stepsearch", "steppo-1")
    tables: list[Any] = [row["rollouts"] for row in rows if "rollouts" in row]
    assert capsys.readouterr().out == ""  # which is for data
    assert len(tables) == 2
    assert tables[0]["_value"][0]["response"].startswith("&lt;think&gt;|&lt;/think&gt;")

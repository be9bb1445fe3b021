from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest

accelerate = pytest.importorskip("accelerate", reason="needs torch: make test-train")

from stepsearch_data.core.errors import ConfigError, TrainError  # noqa: E402 - accelerate must be there
from stepsearch_data.trainer.callbacks.trackers import grouped, tracker_callback, tracker_options  # noqa: E402


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
        if not __import__("importlib.util").util.find_spec(name):
            with pytest.raises(ConfigError, match=f"report_to {name}: it is not installed"):
                tracker_options(name, tmp_path)


def test_a_tracker_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    accelerator = accelerate.Accelerator(cpu=True, **tracker_options("tensorboard", tmp_path / "file"))
    (tmp_path / "file").unlink(missing_ok=True)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainError, match="the tracker does not start"), tracker_callback(accelerator, {}, "run"):
        pass

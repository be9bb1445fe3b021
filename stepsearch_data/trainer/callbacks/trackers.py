"""Experiment trackers, through accelerate: TensorBoard, Weights & Biases, Trackio."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import ConfigError, TrainError

TRACKERS = ("tensorboard", "trackio", "wandb")
_PROJECT = "stepsearch"


def tracker_options(report_to: str, output: Path) -> dict[str, Any]:
    """Return the arguments of an Accelerator that reports to a tracker, or to `none`.

    TensorBoard writes below `output`. Raises ConfigError for a tracker that is unknown or not installed.
    """
    if report_to == "none":
        return {}
    if report_to not in TRACKERS:
        raise ConfigError(f"report_to {report_to} is unknown", f"one of {', '.join(TRACKERS)}, none")
    from accelerate.tracking import get_available_trackers

    if report_to not in {each.value for each in get_available_trackers()}:
        raise ConfigError(f"report_to {report_to}: it is not installed", f"pip install {report_to}")
    return {"log_with": report_to, "project_dir": str(output)}


@contextmanager
def tracker_callback(accelerator: Any, settings: Mapping[str, Any], name: str) -> Iterator[Any]:
    """Yield a callback that reports to the accelerator's trackers until the block ends.

    Without trackers it does nothing. `settings` are shown as the run's, `name` as its name. Raises TrainError where a
    tracker does not start.
    """
    if not accelerator.log_with:
        yield lambda *_: None
        return
    shown = {
        key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
    }
    names = {"wandb": {"name": name}, "trackio": {"name": name}}
    try:
        accelerator.init_trackers(_PROJECT, config=shown, init_kwargs=names)
    except Exception as error:  # whatever a tracker raises: no login, no network
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise TrainError(f"the tracker does not start ({reason})", "log in to it, or set report_to to none") from error
    try:
        yield lambda metrics, _episodes, _scored: accelerator.log(grouped(metrics), step=int(metrics["update"]))
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def grouped(metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename metrics so that trackers group their panels; what is not finite is left out."""
    grouped = {name: name.replace("_", "/", 1) for name in metrics if name.startswith(("eval_", "seconds_"))}
    reported = {name: value for name, value in metrics.items() if name != "update" and math.isfinite(value)}
    return {grouped.get(name, f"train/{name}"): value for name, value in reported.items()}

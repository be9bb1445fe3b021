"""Experiment trackers, through accelerate: TensorBoard, Weights & Biases, Trackio; metrics, and rollouts as tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from html import escape
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.remote.secrets import redact
from stepsearch_data.trainer.callbacks import Callback
from stepsearch_data.trainer.episode_score import EpisodeScore
from stepsearch_data.trainer.search_env import Episode

_PROJECT = "stepsearch"
_ROWS = 8  # rollouts of a table
_LONGEST = 8_000  # characters of a cell
COLUMNS = ("prompt", "response", "answers", "rewards of its turns", "score", "reward", "EM", "ended by")
Row = tuple[str, str, str, str, float, float, int, str]


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
def tracker_callback(
    accelerator: Any, settings: Mapping[str, Any], name: str, *, rollouts_every: int = 0
) -> Iterator[Callback]:
    """Yield a callback that reports to the accelerator's trackers until the block ends.

    Every `rollouts_every` updates they get a table of some rollouts, with 0 never. Without trackers it does nothing.
    `settings` are shown as the run's, `name` as its name. Raises TrainError where a tracker does not start.
    """
    if not accelerator.log_with:
        yield lambda *_: None
        return
    shown = {
        key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
    }
    names = {"wandb": {"name": name}, "trackio": {"name": name}}
    try:
        with redirect_stdout(sys.stderr):  # Trackio's words; stdout is for data
            accelerator.init_trackers(_PROJECT, config=shown, init_kwargs=names)
    except Exception as error:  # whatever a tracker raises: no login, no network
        reason = redact(f"{type(error).__name__}: {error}".partition("\n")[0])
        raise TrainError(f"the tracker does not start ({reason})", "log in to it, or set report_to to none") from error

    def report(metrics: Mapping[str, float], episodes: Sequence[Episode], scored: Sequence[EpisodeScore]) -> None:
        update = int(metrics["update"])
        accelerator.log(grouped(metrics), step=update)
        if rollouts_every and episodes and update % rollouts_every == 0:
            rows = rollout_rows(episodes[:_ROWS], scored[:_ROWS])
            for tracker in accelerator.trackers:
                tracker.log({"rollouts": _TABLES[tracker.name](rows)}, step=update)

    try:
        yield report
    finally:
        with redirect_stdout(sys.stderr):
            for tracker in accelerator.trackers:
                tracker.finish()


def grouped(metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename metrics so that trackers group their panels; what is not finite is left out."""
    grouped = {name: name.replace("_", "/", 1) for name in metrics if name.startswith(("eval_", "seconds_"))}
    reported = {name: value for name, value in metrics.items() if name != "update" and math.isfinite(value)}
    return {grouped.get(name, f"train/{name}"): value for name, value in reported.items()}


def rollout_rows(episodes: Sequence[Episode], scored: Sequence[EpisodeScore]) -> list[Row]:
    """Return a row of `COLUMNS` per rollout: of each search round its reward, then the score of the whole."""
    rows = []
    for episode, each in zip(episodes, scored, strict=True):
        *turns, (_, score) = each.token_rewards or [(0, 0.0)]
        rows.append(
            (
                episode.task.prompt[:_LONGEST],
                episode.text[:_LONGEST],
                " | ".join(episode.task.answers),
                " ".join(f"{reward:+.3f}" for _, reward in turns),
                round(score, 3),
                round(each.total, 3),
                each.scores.answer_em,
                episode.ended,
            )
        )
    return rows


def _markdown(rows: Sequence[Row]) -> str:
    """Write a table as TensorBoard shows texts; tags, lines and bars of the texts stay what they are."""

    def cell(value: str | float) -> str:
        return escape(str(value), quote=False).replace("|", "&#124;").replace("\n", "<br>")

    lines = (COLUMNS, ("---",) * len(COLUMNS), *([cell(value) for value in row] for row in rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _wandb(rows: Sequence[Row]) -> Any:
    import wandb

    return wandb.Table(columns=[*COLUMNS], data=[[*row] for row in rows])


def _trackio(rows: Sequence[Row]) -> Any:
    import trackio

    data = [[escape(cell, quote=False) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return trackio.Table(columns=[*COLUMNS], data=data)  # which takes its texts for Markdown, and their tags for HTML


_TABLES: dict[str, Callable[[Sequence[Row]], Any]] = {"tensorboard": _markdown, "trackio": _trackio, "wandb": _wandb}
TRACKERS = tuple(_TABLES)

"""Runs of the trainer, read from their folders: `metrics.jsonl`, and `run.json` beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from operator import index
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from stepsearch_data.core.errors import TrainError
from stepsearch_data.core.files import read_lines, read_regular
from stepsearch_data.trainer.run_folder import METRICS, RUN_INFO, Pair, RunInfo

_LARGEST = 1 << 20  # bytes of a run.json
_NUMBERED = re.compile(r"(.+?)[-_](?:seed)?(\d+)")

Axis = Literal["updates", "rollouts", "tokens"]
Array = NDArray[np.float64]
Points = tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class Run:
    """A run: where it lies, what it is, and a line of metrics for each update; update 0 is before training."""

    path: Path
    info: RunInfo
    lines: list[dict[str, Any]] = field(repr=False)

    def points(self, metric: str, axis: Axis) -> Points:
        """Return where a metric was measured, and what it was.

        Raises TrainError where a line does not count its rollouts.
        """
        spent = [line["update"] for line in self.lines] if axis == "updates" else list(self._spent(axis))
        measured = [(x, line[metric]) for x, line in zip(spent, self.lines, strict=True) if _number(line.get(metric))]
        found = np.array(measured, dtype=np.float64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def _spent(self, axis: Axis) -> Iterator[float]:
        """Count rollouts, or tokens that the policy wrote, up to each line."""
        names = ["rollouts", "own_tokens"] if axis == "tokens" else ["rollouts"]
        trained = [line for line in self.lines if line["update"]]
        missing = next((name for line in trained for name in names if not _number(line.get(name))), None)
        if missing:
            raise TrainError(f"{self.path / METRICS} has no {missing!r}", "compare by updates: --x updates")
        return accumulate(prod(line[name] for name in names) if line["update"] else 0 for line in self.lines)


def load_runs(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Load the runs in these folders and below; return them, and what was left out of them, in words.

    Raises TrainError where there is none, for metrics or a run.json that cannot be read, and for two folders
    that say to be the same run.
    """
    runs: list[Run] = []
    notes: list[str] = []
    for folder in dict.fromkeys(found for path in paths for found in _folders(path)):
        lines, cut = _lines(folder / METRICS)
        if cut:
            notes.append(f"{folder}: the last line of {METRICS} is half-written and left out")
        if lines:
            runs.append(Run(folder, _run_info(folder), lines))
        else:
            notes.append(f"{folder} has no metrics yet and is left out")
    if not runs:
        raise TrainError(f"none of the runs in {', '.join(map(str, paths))} has metrics yet")
    paths_of: dict[tuple[str, Pair], Path] = {}
    for run in runs:
        if (twin := paths_of.setdefault((run.info.variant, run.info.pair), run.path)) != run.path:
            told = run.info.model_dump(include={"variant", "start", "sft_seed", "seed"})
            what = ", ".join(f"{name} {value}" for name, value in told.items() if value not in ("", None))
            raise TrainError(f"{twin} and {run.path} are both {what}", f"say what they are in {RUN_INFO}")
    return runs, notes


def _folders(path: Path) -> list[Path]:
    """Sort the folders of runs: those of seed 2 before those of seed 10."""

    def natural(path: Path) -> list[str | int]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]

    found = {file.parent.resolve(): file.parent for file in path.rglob(METRICS)}
    if not found:
        problem = f"no {METRICS} in {path}" if path.is_dir() else f"{path} is not a folder"
        raise TrainError(problem, "give folders of runs")
    return sorted(found.values(), key=natural)


def _lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Read the lines of metrics, the last of each update.

    Also tells whether a half-written line at the end was left out.
    """
    try:
        raw = read_lines(path)
    except OSError as error:
        raise TrainError(f"cannot read {path}: {error.strerror}") from error
    cut = bool(raw) and not raw[-1].endswith(b"\n")
    lines: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(raw[: len(raw) - cut], start=1):
        try:
            row = orjson.loads(line)
            lines[index(row["update"])] = row
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise TrainError(f"{path}, line {number}, holds no update's metrics", "is it a run of `train`?") from error
    return [lines[update] for update in sorted(lines)], cut


def _run_info(folder: Path) -> RunInfo:
    """Read `run.json`, or else the folder's name: `steppo-seed3` and `steppo-3` are seed 3 of steppo."""
    path = folder / RUN_INFO
    if path.exists():
        try:
            return RunInfo.model_validate_json(read_regular(path, _LARGEST))
        except (OSError, ValidationError) as error:
            raise TrainError(
                f"{path} does not say what the run is", 'like {"variant": "steppo", "start": "weak", "seed": 1}'
            ) from error
    name = folder.resolve().name
    numbered = _NUMBERED.fullmatch(name)
    return RunInfo(variant=numbered[1], seed=int(numbered[2])) if numbered else RunInfo(variant=name)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))

"""The folder of an evaluation: rollouts as they are played, and what a repeated command finds there."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from stepsearch_data.core.atomic import write_whole
from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.core.files import read_lines, read_text
from stepsearch_data.evaluation.measure import Row
from stepsearch_data.trainer.search_env import Task

ROLLOUTS, SETTINGS, METRICS, REPLIES = "rollouts.jsonl", "settings.json", "metrics.json", "replies.sqlite"
_TEXTS = ("question", "prompt", "response", "target", "search_keys")  # of a row, not needed to measure it
_ANOTHER = "name another folder with --output"

Key = tuple[str, str, str, int]  # source, id, question and sample: two files may number theirs alike


class RolloutFolder:
    """Appends to `rollouts.jsonl`, in which each row is whole. `folder` None keeps nothing.

    `settings` say what is evaluated: a folder takes rollouts of one evaluation only. Rows that a server refused are
    dropped, to be played again. More samples of each question may be added to those that are there.
    Raises ConfigError for a folder of another evaluation, StepSearchError where it cannot be written.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._settings = settings
        self._earlier: defaultdict[Key, deque[Row]] = defaultdict(deque)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.folder:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._claim(self.folder / SETTINGS)
                self._file = self._reopened(self.folder / ROLLOUTS)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ConfigError(f"{self.folder} holds what no evaluation wrote: {error!r}", _ANOTHER) from error
            except OSError as error:
                raise _unwritable(self.folder, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def take_earlier(self, task: Task) -> Row | None:
        """Return the row of a question that was played before, without its long texts; each is given once."""
        rows = self._earlier.get((task.source, task.id, task.question, task.sample))
        return rows.popleft() if rows else None

    def append(self, rows: Iterable[Row]) -> None:
        """Add rollouts, on the disk when this returns."""
        if self.folder and self._file:
            try:
                self._file.write(b"".join(orjson.dumps(row) + b"\n" for row in rows))
                self._file.flush()
            except OSError as error:
                raise _unwritable(self.folder, error) from error

    def write_metrics(self, metrics: Row) -> None:
        """Write `metrics.json`."""
        if self.folder:
            write_whole(self.folder / METRICS, orjson.dumps(metrics, option=orjson.OPT_INDENT_2) + b"\n")

    def _claim(self, path: Path) -> None:
        """Make the folder this evaluation's, unless it is another's."""
        ours = orjson.dumps(self._settings, option=orjson.OPT_INDENT_2) + b"\n"
        before = read_text(path).encode() if path.exists() else ours
        theirs = orjson.loads(before)
        names = [name for name in {**theirs, **self._settings} if theirs.get(name) != self._settings.get(name)]
        if names not in ([], ["samples"]):
            changed = [f"{name} {theirs.get(name)} → {self._settings.get(name)}" for name in names]
            raise ConfigError(f"{self.folder} holds another evaluation: {', '.join(changed)}", _ANOTHER)
        write_whole(path, ours)

    def _reopened(self, path: Path) -> BinaryIO:
        """Open the file at its end, without a row that was cut off and without refused ones."""
        lines = read_lines(path) if path.exists() else []
        kept = []
        for line in lines:
            row: Row = orjson.loads(line) if line.endswith(b"\n") else {"ended": "refused"}
            if row["ended"] != "refused":
                kept.append(line)
                key: Key = (row["data_source"], row["id"], row["question"], row.get("sample", 1))
                self._earlier[key].append({k: v for k, v in row.items() if k not in _TEXTS})
        if len(kept) < len(lines):
            write_whole(path, b"".join(kept))
        return open(path, "ab")


def count_played(folder: Path | None) -> int:
    """Count the rollouts of a folder that are not played again. Raises ConfigError."""
    path = folder / ROLLOUTS if folder else None
    try:
        lines = read_lines(path) if path and path.exists() else []
        return sum(orjson.loads(line)["ended"] != "refused" for line in lines if line.endswith(b"\n"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder} holds what no evaluation wrote: {error!r}", _ANOTHER) from error


def _unwritable(folder: Path, error: OSError) -> StepSearchError:
    return StepSearchError(f"cannot write {folder}: {error.strerror or error}", "the same command goes on")

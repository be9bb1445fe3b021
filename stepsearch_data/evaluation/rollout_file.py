"""The folder of an evaluation: rollouts as they are played, and what a repeated command finds there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Self

import orjson

from stepsearch_data.core.atomic import lock, write_whole, writing
from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.core.files import open_regular, read_text
from stepsearch_data.evaluation.measure import Row, described
from stepsearch_data.sources.rollouts import ROLLOUTS
from stepsearch_data.trainer.search_env import Task

SETTINGS, METRICS, REPLIES = "settings.json", "metrics.json", "replies.sqlite"
ANOTHER = "name another folder with --output"
"""What to do about a folder of another evaluation."""


class RolloutFolder:
    """Appends to `rollouts.jsonl`, in which each row is whole. `folder` None keeps nothing.

    `settings` say what is evaluated: a folder takes rollouts of one evaluation only. Rows that a server refused are
    dropped, to be played again. Questions, and samples of each, may be added to those that are there. `dry` writes
    nothing, and needs no engine. Only the places of rows are held in memory. `another` is the hint where a folder is
    not fit for these settings.
    Raises ConfigError for a folder of another evaluation, or that another process writes, StepSearchError where it
    cannot be written.
    """

    def __init__(self, folder: Path | None, settings: Row, *, dry: bool = False, another: str = ANOTHER) -> None:
        self.folder = folder
        self.earlier: dict[bytes, list[int]] = {}
        """Offsets of the rows that were played before and are not taken yet, by question and sample."""
        self._settings, self._dry, self._another = settings, dry, another
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._reader: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.folder:
            try:
                self._open(self.folder, self.folder / ROLLOUTS)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ConfigError(f"{self.folder} holds what no evaluation wrote: {error!r}", self._another) from error
            except OSError as error:
                raise _unusable(self.folder, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take_earlier(self, task: Task) -> Row | None:
        """Return the row of a question that was played before; each is given once.

        A file may ask a question twice, with other answers. Raises ConfigError where a store's answer, or gold
        paragraphs, are others than the row was measured by.
        """
        offsets = self.earlier.get(_key(task.source, task.id, task.question, task.sample), [])
        for offset in offsets:
            assert self._reader
            self._reader.seek(offset)
            row: Row = orjson.loads(self._reader.readline())
            changed = [name for name, now in described(task).items() if row.get(name) != now]
            if not changed:
                offsets.remove(offset)
                return row
            if "digest" not in self._settings:
                why = f"{self.folder} holds rollouts of {task.id} with another {' and '.join(changed)}"
                raise ConfigError(why, self._another)
        return None

    def append(self, rows: Iterable[Row]) -> None:
        """Add rollouts, on the disk when this returns."""
        if self.folder and self._file:
            try:
                self._file.write(b"".join(orjson.dumps(row) + b"\n" for row in rows))
                self._file.flush()
            except OSError as error:
                raise _unusable(self.folder, error) from error

    def write_metrics(self, metrics: Row) -> None:
        """Write `metrics.json`."""
        if self.folder:
            write_whole(self.folder / METRICS, orjson.dumps(metrics, option=orjson.OPT_INDENT_2) + b"\n")

    def _open(self, folder: Path, path: Path) -> None:
        ours = self._agreed(folder / SETTINGS)
        if not self._dry:
            folder.mkdir(parents=True, exist_ok=True)
            if not lock(self._stack.enter_context((folder / ".lock").open("a")), seconds=0):
                self._stack.close()
                raise ConfigError(f"another evaluation is writing {folder}", f"wait for it, or {self._another}")
            write_whole(folder / SETTINGS, orjson.dumps(ours, option=orjson.OPT_INDENT_2) + b"\n")
        if path.exists():
            if not self._dry:
                _drop_refused(path)
            with open_regular(path) as file:
                for offset, _, row in _lines(file):
                    if row is not None:
                        key = _key(row["data_source"], row["id"], row["question"], row.get("sample", 1))
                        self.earlier.setdefault(key, []).append(offset)
            self._reader = self._stack.enter_context(open_regular(path))
        if not self._dry:
            self._file = self._stack.enter_context(path.open("ab"))

    def _agreed(self, path: Path) -> Row:
        """Return the folder's settings, with the most samples so far. Raises ConfigError for another evaluation.

        A model that is served at another address is the same one.
        """
        theirs: Row = orjson.loads(read_text(path)) if path.exists() else self._settings
        ignored = {"samples", "base_url", *(["engine"] if self._dry else [])}
        if "digest" not in self._settings:
            ignored.add("digest")  # of a store's manifest, which earlier versions wrote: any build changed it
        if "questions" not in self._settings:
            ignored.add("questions")  # the folder grows, and may have begun as one of an evaluation
        names = [name for name in {**theirs, **self._settings} if theirs.get(name) != self._settings.get(name)]
        changed = [f"{name} {theirs.get(name)} → {self._settings.get(name)}" for name in names if name not in ignored]
        if changed:
            raise ConfigError(f"{self.folder} holds another evaluation: {', '.join(changed)}", self._another)
        samples = max(each.get("samples", 1) for each in (theirs, self._settings))
        return {**self._settings, **({"samples": samples} if samples > 1 else {})}


def _drop_refused(path: Path) -> None:
    """Write the file anew where `_lines` finds some that are no row. Raises OSError."""
    with open_regular(path) as file:
        if any(row is None for *_, row in _lines(file)):
            file.seek(0)
            with writing(path) as part, open(part, "xb") as kept:
                kept.writelines(line for _, line, row in _lines(file) if row is not None)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes, Row | None]]:
    """Yield each line after its offset, with its row, None where it was cut off or a server refused it."""
    offset = 0
    for line in file:
        row = orjson.loads(line) if line.endswith(b"\n") else None
        yield offset, line, None if row is None or row["ended"] == "refused" else row
        offset += len(line)


def _key(source: str, question_id: str, question: str, sample: int) -> bytes:
    """Return what is known of a rollout before it is played: two files may number their questions alike."""
    return blake2b(orjson.dumps([source, question_id, question, sample]), digest_size=16).digest()


def _unusable(folder: Path, error: OSError) -> StepSearchError:
    return StepSearchError(
        f"cannot use {folder}: {error.strerror or error}", "the same command goes on; elsewhere: --output DIR"
    )

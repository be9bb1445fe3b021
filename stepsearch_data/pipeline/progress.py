"""What a person sees while a build runs: on stderr, a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Meter:
    """Progress of one stage: call `advance` as rows are done, `expect` once their number is known."""

    def __init__(self, bar: Progress | None, stage: str) -> None:
        self._bar = bar
        self._task = bar.add_task(stage, total=None) if bar else None

    def expect(self, total: int) -> None:
        """Set the number of rows that the stage will handle."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, total=total)

    def advance(self, rows: int = 1) -> None:
        """Count rows as done."""
        if self._bar and self._task is not None:
            self._bar.advance(self._task, rows)


class Reporter:
    """Draws meters and prints a line a finished stage. `quiet` keeps it silent."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)

    @contextmanager
    def stage(self, name: str) -> Iterator[Meter]:
        """A meter for the stage that runs inside the block."""
        if not self._console.is_terminal or self._console.quiet:
            yield Meter(None, name)
            return
        columns = (TextColumn("{task.description:<13}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True
        ) as bar:
            yield Meter(bar, name)

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Elapsed wall time in seconds."""
        return time.perf_counter() - self._start

"""What a person sees while a build runs: on stderr, a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

_PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal
_NOTE_EVERY = 0.25  # seconds between changes of a note


class Meter:
    """Progress of one stage: call `advance` as rows are done, `expect` once their number is known.

    Draws on `bar`; without one it calls `say` with a line every ten seconds.
    """

    def __init__(
        self,
        bar: Progress | None,
        stage: str,
        say: Callable[[str], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._bar, self._stage, self._say, self._stopped = bar, stage, say, stopped
        self._task = bar.add_task(stage, total=None, note="") if bar else None
        self._done, self._total = 0, 0
        self._note = ""
        self._noted = self._said = time.monotonic()

    def expect(self, total: int) -> None:
        """Set the number of rows that the stage will handle."""
        self._total = total
        self._draw(total=total)

    def note(self, describe: Callable[[], str]) -> None:
        """Show a note beside the count; `describe` is called a few times per second at most."""
        now = time.monotonic()
        if now - self._noted >= _NOTE_EVERY:
            self._noted, self._note = now, describe()
            self._draw(note=self._note)

    def say(self, text: str) -> None:
        """Show what is waited for while no row is done."""
        self._noted, self._note = time.monotonic(), text
        self._draw(note=text)
        self.advance(0)

    def _draw(self, **changes: Any) -> None:
        if self._bar and self._task is not None:
            self._bar.update(self._task, **changes)

    def tell(self, text: str) -> None:
        """Say something that stays on the screen."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self._say:
            self._say(text)

    def advance(self, rows: int = 1) -> None:
        """Count rows as done. Raises KeyboardInterrupt once the reporter is told to stop."""
        if self._stopped():
            raise KeyboardInterrupt
        self._done += rows
        if self._bar and self._task is not None:
            self._bar.advance(self._task, rows)
        elif self._say and time.monotonic() - self._said >= _PLAIN_EVERY:
            self._said = time.monotonic()
            of = f" of {self._total:,}" if self._total else ""
            self._say(f"{self._stage:<13} {self._done:,}{of}  {self._note}".rstrip())

    def track(self, items: Iterable[T], total: int) -> Iterator[T]:
        """Yield the items, `total` of them, and count each as done when the next one is wanted."""
        self.expect(total)
        for item in items:
            yield item
            self.advance()


class Reporter:
    """Draws meters and prints one line per finished stage. `quiet` keeps it silent."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, quiet=quiet)
        self._stopped = Event()

    def stop(self) -> None:
        """End what runs in another thread, at its next row."""
        self._stopped.set()

    @contextmanager
    def stage(self, name: str) -> Iterator[Meter]:
        """Yield a meter for the stage that runs inside the block."""
        if not self._console.is_terminal or self._console.quiet:
            yield Meter(None, name, self.line, self._stopped.is_set)
            return
        from rich import progress as rich

        note = rich.TextColumn("[dim]{task.fields[note]}")
        counts = (rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), rich.TimeRemainingColumn())
        columns = (rich.TextColumn("{task.description:<13}"), rich.BarColumn(), *counts, note)
        with rich.Progress(*columns, console=self._console, transient=True) as bar:
            yield Meter(bar, name, None, self._stopped.is_set)

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

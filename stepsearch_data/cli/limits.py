"""A command's work in a process of its own, which ends at a limit of time or memory whatever it is doing.

DuckDB looks for an interrupt between steps that may take minutes, and does not count all of its memory.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

import typer

from stepsearch_data.core.errors import QueryError

_MORE_MEMORY = "give it more: --memory GIB; or ask for fewer rows and columns"
_LOOK = 0.02  # seconds between two looks at the memory, in which a thread can take some 50 MB more


@dataclass(frozen=True)
class Limits:
    """What a query may take: seconds, and bytes of memory (on Linux)."""

    seconds: float
    memory: int

    def split_off(self, undo: Callable[[], None]) -> None:
        """Return in a child process; this one waits for it and ends as it does.

        `undo` removes what a child that was killed has left. Raises QueryError where it was killed, or crashed.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        over, alive = os.pipe()  # the system closes `alive` with the child
        child = os.fork()
        if child == 0:
            os.close(over)
            for number in (signal.SIGINT, signal.SIGALRM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)  # Python's own handler waits until DuckDB returns
            return
        os.close(alive)
        signal.signal(signal.SIGTERM, _terminated)
        try:
            large = self._watch(child, over)
            status = os.waitpid(child, 0)[1]
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            undo()
            raise
        if os.WIFEXITED(status):
            raise typer.Exit(os.WEXITSTATUS(status))
        undo()
        raise self._failure(os.WTERMSIG(status), large=large)

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Have the system end this process where the block takes longer than it may."""
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _watch(self, child: int, over: int) -> bool:
        """Wait until a process ends; return True where it took too much memory and was killed."""
        while not select.select([over], [], [], _LOOK)[0]:
            if _resident(child) > self.memory:
                os.kill(child, signal.SIGKILL)
                return True
        return False

    def _failure(self, number: int, *, large: bool) -> BaseException:
        """Return the error to raise for a child that a signal ended."""
        if number == signal.SIGINT:
            return KeyboardInterrupt()
        if number == signal.SIGALRM:
            return QueryError(f"the query took longer than {self.seconds:g} s", "give it more: --timeout SECONDS")
        if large:
            return QueryError(f"the query took more than {self.memory / (1 << 30):g} GiB of memory", _MORE_MEMORY)
        return QueryError(f"the query's process was ended by {signal.Signals(number).name}")


def _resident(process: int) -> int:
    """Return the bytes of memory that a process has; 0 where the system does not tell."""
    with suppress(OSError), open(f"/proc/{process}/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _terminated(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)

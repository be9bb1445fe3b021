"""What an executor is, and the one that works in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from stepsearch_data.core.errors import StepSearchError

T = TypeVar("T")
U = TypeVar("U")


class WorkerError(StepSearchError):
    """Workers ended again and again, or a cluster gives none; what was committed is kept."""


class Executor(Protocol):
    """Applies functions to items. `workers` is how many items are worked on at the same time."""

    workers: int

    def map(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Yield the function's result for each item, in order. Items are taken a bounded number ahead.

        What the function raises is raised in its turn. Raises WorkerError where workers end.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class Inline:
    """Works in this process, on one item at a time."""

    workers = 1

    def map(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Yield the function's result for each item, in order."""
        return map(function, items)

    def close(self) -> None:
        """Do nothing."""


INLINE = Inline()

"""What an executor is, and the one that works in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from stepsearch_data.core.errors import StepSearchError

T = TypeVar("T")
U = TypeVar("U")


class WorkerError(StepSearchError):
    """Workers ended again and again, or a cluster gives none; what was committed is kept."""


def out_of_memory(who: str, hint: str) -> WorkerError:
    """Return the error that a worker needs more memory than there is."""
    return WorkerError(f"{who} has run out of memory", f"{hint}; then the same command again")


class Copies(Protocol):
    """Workers that keep one function, with what it has loaded, until they are closed."""

    def map(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the result for each item, in order, of whichever worker is free: see `Executor.map`."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class Parts(Protocol):
    """Workers that keep a function each, with what it has opened, until they are closed."""

    def ask(self, item: Any) -> list[Any]:
        """Return what every worker makes of an item, in the order of their functions."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class Executor(Protocol):
    """Applies functions to items."""

    @property
    def workers(self) -> int:
        """Return how many items are worked on at the same time."""
        ...

    def map(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Yield the function's result for each item, in order. Items are taken a bounded number ahead.

        What the function raises is raised in its turn. Raises WorkerError where workers end.
        """
        ...

    def copies(self, function: Callable[[T], U]) -> Copies:
        """Keep a function that loads a model: in a worker for each GPU, or for each core where there is no GPU."""
        ...

    def parts(self, functions: Sequence[Callable[[T], U]]) -> Parts:
        """Keep several functions, each in a worker of its own."""
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

    def copies(self, function: Callable[[T], U]) -> Copies:
        """Keep the function here: a model uses all cores, and the GPU, by itself."""
        return Here([function])

    def parts(self, functions: Sequence[Callable[[T], U]]) -> Parts:
        """Keep the functions here."""
        return Here(functions)

    def close(self) -> None:
        """Do nothing."""


class Here:
    """Functions in this process."""

    def __init__(self, functions: Sequence[Callable[[Any], Any]]) -> None:
        self._functions = functions

    def map(self, items: Iterable[Any]) -> Iterator[Any]:
        """See `Copies.map`."""
        return map(self._functions[0], items)

    def ask(self, item: Any) -> list[Any]:
        """See `Parts.ask`."""
        return [function(item) for function in self._functions]

    def close(self) -> None:
        """Forget the functions, and what they have opened."""
        self._functions = ()


INLINE = Inline()

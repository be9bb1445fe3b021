"""Processes of this machine, forked from a server that has imported what they need.

They end with this process, however it ends: each waits for the end of a pipe that only this process holds open.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as any_ready
from types import ModuleType
from typing import Any, TypeVar

from stepsearch_data.executors.executor import INLINE, Copies, Parts, WorkerError, out_of_memory
from stepsearch_data.executors.worker import function_of, prepare

T = TypeVar("T")
U = TypeVar("U")

_AHEAD = 2  # items per worker that are sent before their turn
_TRIES = 3
_LOOK_SECONDS = 1.0  # between two looks for a worker that has ended
_FEWER = "use fewer: --workers 1"


class Processes:
    """Works in so many processes, which are started for each call of `map` and end with it."""

    def __init__(self, workers: int, preload: Sequence[str] = ()) -> None:
        self.workers = workers
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, *preload, "stepsearch_data.executors.frozen"])
        self._pools: set[_Pool] = set()

    def map(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Yield the function's result for each item, in order; after the end of a worker, from new ones."""
        pickled = pickle.dumps(function)
        waiting: deque[tuple[T, Future[U]]] = deque()
        pool = _Pool(self.workers, self._context, pickled)
        self._pools.add(pool)
        try:
            for item in items:
                waiting.append((item, pool.submit(item)))
                if len(waiting) > _AHEAD * self.workers:
                    yield _first(waiting, pool)
            while waiting:
                yield _first(waiting, pool)
        finally:
            pool.close()
            self._pools.discard(pool)

    def copies(self, function: Callable[[T], U]) -> Copies:
        """Keep the function in this process: see `Inline.copies`."""
        return INLINE.copies(function)

    def parts(self, functions: Sequence[Callable[[T], U]]) -> Parts:
        """Keep each function in a process of its own."""
        return _Kept(functions, self._context)

    def close(self) -> None:
        """End the processes of calls whose results are no longer wanted."""
        for pool in self._pools:
            pool.close()


def _first(waiting: deque[tuple[T, Future[U]]], pool: _Pool) -> U:
    """Return the result of the first item. Where a worker has ended, all items that wait are sent again."""
    for _ in range(_TRIES):
        try:
            result = pool.result(waiting[0][1])
        except BrokenProcessPool:
            pool.restart()
            again = [(item, pool.submit(item)) for item, _ in waiting]
            waiting.clear()
            waiting.extend(again)
        except MemoryError as error:
            raise out_of_memory("a worker process", _FEWER) from error
        else:
            waiting.popleft()
            return result
    raise WorkerError(
        f"a worker process was killed {_TRIES} times at the same work, perhaps for want of memory",
        f"{_FEWER}; then the same command again",
    )


class _Kept:
    """Processes that keep a function each."""

    def __init__(self, functions: Sequence[Callable[[Any], Any]], context: Any) -> None:
        self._pools = [_Pool(1, context, pickle.dumps(function)) for function in functions]

    def ask(self, item: Any) -> list[Any]:
        """See `Parts.ask`."""
        sent = [(deque([(item, pool.submit(item))]), pool) for pool in self._pools]
        return [_first(waiting, pool) for waiting, pool in sent]

    def close(self) -> None:
        """See `Parts.close`."""
        for pool in self._pools:
            pool.close()


class _Pool:
    """A pool of processes that may be started again. They end at once when it is closed."""

    def __init__(self, workers: int, context: Any, pickled: bytes) -> None:
        self._workers, self._context, self._pickled = workers, context, pickled
        self._start()

    def _start(self) -> None:
        self._inner, self._outer = self._context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self._workers, self._context, _begin, (self._pickled, self._inner))
        # Private, as nothing public ends the executor's wait for the rest of a result: see `_end`.
        self._results: Any = self._pool._result_queue  # noqa: SLF001

    def submit(self, item: Any) -> Future[Any]:
        """Send an item. In a broken pool its future fails like those of the others."""
        try:
            with _quiet_start():
                return self._pool.submit(_work, item)
        except BrokenProcessPool as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    def result(self, future: Future[U]) -> U:
        """Return a future's result. Raises BrokenProcessPool where a worker has ended, perhaps while it sent one."""
        while not wait([future], _LOOK_SECONDS).done:
            processes = list(self._pool._processes.values())  # noqa: SLF001 - as above
            if any_ready([process.sentinel for process in processes], 0):
                self._end()
        return future.result()

    def restart(self) -> None:
        """End all processes, and start others."""
        self.close()
        self._start()

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        self._end()
        self._pool.shutdown(cancel_futures=True)
        self._inner.close()

    def _end(self) -> None:
        """End the processes, and the wait of the executor for the rest of a result that one of them was sending."""
        self._outer.close()
        self._results._writer.close()  # noqa: SLF001 - were it open, the executor would never see the pipe's end


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Start processes that do not run the user's script again, as they need nothing of it, and that ignore Ctrl-C.

    This process obeys Ctrl-C when they are started: nobody would wait for a process that is half-started.
    """
    main = sys.modules["__main__"]
    held: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()  # no other thread may set a handler
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if is_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    for number in held[:1]:
        signal.raise_signal(number)


_pickled = b""


def _begin(pickled: bytes, lifeline: Connection) -> None:
    """Prepare a process that has just started."""
    global _pickled  # noqa: PLW0603 - a pool hands nothing from its initialiser to its work
    _pickled = pickled
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    prepare()


def _end_with(lifeline: Connection) -> None:
    """End this process once the other end of the pipe is closed."""
    lifeline.poll(None)
    os._exit(1)


def _work(item: Any) -> Any:
    return function_of(_pickled)(item)

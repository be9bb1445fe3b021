"""Actors of a Ray cluster: workers that keep a function, with what it has loaded."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from queue import Empty, Queue
from typing import Any

from stepsearch_data.core.version import __version__
from stepsearch_data.executors.executor import WorkerError
from stepsearch_data.executors.ray_cluster import AHEAD, RETRIES, Cluster, check_version
from stepsearch_data.executors.worker import prepare


class _Actor:
    """A function in a worker. What is wrong with a worker is said at its first call, as a constructor cannot."""

    def __init__(self, version: str, pickled: bytes) -> None:
        self._version, self._pickled = version, pickled

    @cached_property
    def _function(self) -> Callable[[Any], Any]:
        check_version(self._version)
        prepare()
        return pickle.loads(self._pickled)  # type: ignore[no-any-return]  # noqa: S301 - the build pickled it

    def begin(self) -> None:
        """Load the function: then the worker has started."""
        getattr(self, "_function")  # noqa: B009 - a cached property

    def work(self, item: Any) -> Any:
        return self._function(item)


class RayCopies:
    """Actors with a GPU each, or a core each where the cluster has no GPU. They start at the first item.

    The item of an actor that has ended goes to another, and a new actor is started. So the others go on where a node
    is lost.
    """

    def __init__(self, cluster: Cluster, function: Callable[[Any], Any]) -> None:
        self._cluster, self._function = cluster, function
        self._actors: set[Any] = set()
        self._idle: Queue[Any] = Queue()

    @cached_property
    def _count(self) -> int:
        """Start the actors; return how many."""
        self._cluster.connect()
        gpus = self._cluster.count("GPU")
        wanted = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        self._new = self._cluster.ray.remote(**wanted)(_Actor)
        self._sent = self._cluster.ray.put(pickle.dumps(self._function))
        count = gpus or self._cluster.cores
        self._starts = (1 + RETRIES) * count  # that are left
        self._starting, self._working = ThreadPoolExecutor(count), ThreadPoolExecutor(count)
        for _ in range(count):
            self._starting.submit(self._start)
        return count

    def map(self, items: Iterable[Any]) -> Iterator[Any]:
        """See `Copies.map`."""
        waiting: deque[Future[Any]] = deque()
        try:
            for item in items:
                ahead = AHEAD * self._count
                waiting.append(self._working.submit(self._work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()

    def close(self) -> None:
        """See `Copies.close`."""
        if "_count" in vars(self):
            self._starts = 0
            for actor in tuple(self._actors):  # threads may still add some
                self._cluster.ray.kill(actor)
            for _ in range(self._count):
                self._idle.put(
                    WorkerError("the workers were ended")
                )  # or a thread would wait for one, and Python for it
            self._starting.shutdown(wait=False, cancel_futures=True)
            self._working.shutdown(wait=False, cancel_futures=True)
            self._actors, self._idle = set(), Queue()
            del self._count

    def _start(self) -> None:
        """Start an actor, and wait until it can work; `_work` says so where there is none for too long."""
        self._starts -= 1
        actor = self._new.remote(__version__, self._sent)
        self._actors.add(actor)
        begun = actor.begin.remote()
        try:
            self._cluster.wait([begun])
        except WorkerError:
            return
        try:
            self._cluster.value(begun)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            self._idle.put(error)
        else:
            self._idle.put(actor)

    def _work(self, item: Any) -> Any:
        """Let an actor work on an item; where it ends, another."""
        while True:
            try:
                actor = self._idle.get(timeout=self._cluster.patience)
            except Empty:
                raise self._cluster.no_work() from None
            if isinstance(actor, BaseException):
                raise actor
            call = actor.work.remote(item)
            try:
                result = self._cluster.ray.get(call)  # as long as it takes: Ray tells when an actor ends
            except self._cluster.ray.exceptions.RayActorError:
                self._actors.discard(actor)
                if self._starts <= 0:
                    return self._cluster.value(call)
                self._starting.submit(self._start)
            except self._cluster.ray.exceptions.RayError:
                self._idle.put(actor)
                return self._cluster.value(call)
            else:
                self._idle.put(actor)
                return result


class RayParts:
    """Actors that keep a function each. Ray starts them again where they end."""

    def __init__(self, cluster: Cluster, functions: Sequence[Callable[[Any], Any]]) -> None:
        cluster.connect()
        self._cluster = cluster
        # No core is reserved: parts are searched in turns with other work, for which the cores must be free.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": RETRIES}
        new = cluster.ray.remote(**options, scheduling_strategy="SPREAD")(_Actor)
        self._actors = [new.remote(__version__, pickle.dumps(function)) for function in functions]
        self._results([actor.begin.remote() for actor in self._actors])

    def ask(self, item: Any) -> list[Any]:
        """See `Parts.ask`."""
        sent = self._cluster.ray.put(item)
        return self._results([actor.work.remote(sent) for actor in self._actors])

    def close(self) -> None:
        """See `Parts.close`."""
        for actor in self._actors:
            self._cluster.ray.kill(actor)
        self._actors = []

    def _results(self, calls: Sequence[Any]) -> list[Any]:
        return [self._cluster.result(call) for call in calls]

"""A Ray cluster as an executor: tasks for items, and actors for functions that are kept."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from stepsearch_data.core.version import __version__
from stepsearch_data.executors.ray_actors import RayCopies, RayParts
from stepsearch_data.executors.ray_cluster import AHEAD, RETRIES, Cluster, check_version
from stepsearch_data.executors.worker import function_of, prepare

T = TypeVar("T")
U = TypeVar("U")


class OnRay:
    """Works in tasks of one core each. Ray repeats those whose worker or node has ended. See `Cluster`."""

    def __init__(self, workers: int, address: str | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        """Import Ray. Raises ConfigError where it is not installed."""
        self._cluster = Cluster(workers, address, say)
        self._task = self._cluster.ray.remote(num_cpus=1, max_retries=RETRIES)(_work)

    @property
    def workers(self) -> int:
        """Return the cores of the cluster."""
        return self._cluster.cores

    def map(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Yield the function's result for each item, in order."""
        cluster = self._cluster
        cluster.connect()
        sent = cluster.ray.put(pickle.dumps(function))
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(self._task.remote(__version__, sent, item))
                if len(waiting) > AHEAD * cluster.cores:
                    yield cluster.result(waiting.popleft())
            while waiting:
                yield cluster.result(waiting.popleft())
        finally:
            for left in waiting:
                cluster.ray.cancel(left, force=True)

    def copies(self, function: Callable[[T], U]) -> RayCopies:
        """Keep a function in an actor for each GPU of the cluster, or for each core where it has none."""
        return RayCopies(self._cluster, function)

    def parts(self, functions: Sequence[Callable[[T], U]]) -> RayParts:
        """Keep each function in an actor of its own, on as many nodes as there are."""
        return RayParts(self._cluster, functions)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._cluster.close()


def _work(version: str, pickled: bytes, item: Any) -> Any:
    """Do a task, in a worker."""
    check_version(version)
    prepare()
    return function_of(pickled)(item)

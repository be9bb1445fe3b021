"""A Ray cluster: one that is running, or one that is started on this machine."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, redirect_stdout
from typing import Any, TypeVar

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.version import __version__
from stepsearch_data.executors.executor import WorkerError
from stepsearch_data.executors.worker import function_of, prepare

T = TypeVar("T")
U = TypeVar("U")

_AHEAD = 2  # items per core that are sent before their turn
_RETRIES = 3
_PATIENCE = 300.0  # seconds without a result; no item takes so long


class OnRay:
    """Works in tasks of one core each. Ray repeats those whose worker or node has ended.

    `address` is that of a running cluster. Without one it is RAY_ADDRESS, else the cluster that runs on this machine,
    else one of `workers` cores that is started here and ends with this process.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        """Import Ray. Raises ConfigError where it is not installed."""
        try:
            import ray
        except ImportError as error:
            raise ConfigError("the executor ray needs the package ray", "pip install 'stepsearch-data[ray]'") from error
        self._ray: Any = ray
        self.workers = workers
        self._address = address
        self._left = ExitStack()

    def map(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Yield the function's result for each item, in order."""
        self._connect()
        task = self._ray.remote(num_cpus=1, max_retries=_RETRIES)(_work)
        sent = self._ray.put(pickle.dumps(function))
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(task.remote(__version__, sent, item))
                if len(waiting) > _AHEAD * self.workers:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for left in waiting:
                self._ray.cancel(left, force=True)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._left.close()

    def _connect(self) -> None:
        if not self._ray.is_initialized():
            self._left.callback(self._ray.shutdown)
            self._left.enter_context(redirect_stdout(sys.stderr))  # Ray prints there what it says of its workers
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours reports to nobody
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns that this will change
            quiet = {"logging_level": "ERROR", "log_to_driver": False}
            named = self._address or os.environ.get("RAY_ADDRESS")
            try:
                _reach(named or "")
                self._ray.init(address=named or "auto", **quiet)
            except (OSError, RuntimeError, ValueError) as error:
                if named:
                    reason = str(error).partition("\n")[0]
                    raise WorkerError(f"cannot join the Ray cluster {named}: {reason}", "see: ray status") from error
                self._ray.init(address="local", num_cpus=self.workers, include_dashboard=False, **quiet)
        self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 0)))

    def _result(self, reference: Any) -> Any:
        failures = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=_PATIENCE)
        except failures.RayTaskError as error:
            raise error.cause from None
        except failures.GetTimeoutError:
            cores = [int(of.get("CPU", 0)) for of in (self._ray.cluster_resources(), self._ray.available_resources())]
            raise WorkerError(
                f"the Ray cluster has done no work for {_PATIENCE:.0f} s: it has {cores[0]} cores, {cores[1]} free",
                "see: ray status; the same command goes on with the stage that was interrupted",
            ) from None
        except failures.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise WorkerError(
                f"a worker of the Ray cluster failed {1 + _RETRIES} times: {type(error).__name__}: {reason}",
                "see: ray status; the same command goes on with the stage that was interrupted",
            ) from error


def _reach(address: str) -> None:
    """Raise OSError where nobody answers at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _work(version: str, pickled: bytes, item: Any) -> Any:
    """Do a task, in a worker."""
    if version != __version__:
        raise WorkerError(
            f"a Ray worker has stepsearch-data {__version__}, and this build {version}", "install the same on all nodes"
        )
    prepare()
    return function_of(pickled)(item)

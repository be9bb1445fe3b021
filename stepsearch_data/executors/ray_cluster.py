"""The connection to a Ray cluster, and what its errors mean."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.version import __version__
from stepsearch_data.executors.executor import WorkerError, out_of_memory

AHEAD = 2  # items per core that are sent before their turn
RETRIES = 3
PATIENCE = 300.0  # seconds without a result; no item takes so long
SAY_EVERY = 15.0  # seconds
_OWN = "local"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a cluster of ours reports to nobody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that this will change
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # those of items that nobody waits for any more
    "RAY_task_oom_retries": str(RETRIES),  # or work that never finds the memory is tried for ever
    "RAY_COLOR_PREFIX": "0",
}
_GO_ON = "see: ray status; the same command goes on with the stage that was interrupted"


class Cluster:
    """A cluster that this process joins when it has work for it.

    `address` is that of a running cluster. Without one it is RAY_ADDRESS, else the cluster that runs on this machine,
    else, and for the address `local`, one of `cores` that is started here and ends with this process. `say` is told
    when there is a wait.
    """

    def __init__(self, cores: int, address: str | None, say: Callable[[str], None]) -> None:
        """Import Ray. Raises ConfigError where it is not installed."""
        try:
            import ray
        except ImportError as error:
            raise ConfigError("the executor ray needs the package ray", "pip install 'stepsearch-data[ray]'") from error
        self.ray: Any = ray
        self.cores = cores
        self.patience = PATIENCE
        self._address = address
        self._say = say
        self._left = ExitStack()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._left.close()

    def connect(self) -> None:
        """Join the cluster, if that was not done yet. Raises WorkerError."""
        if not self.ray.is_initialized():
            self._left.enter_context(redirect_stdout(_FirstLines(self._say)))  # where Ray tells of its workers
            self._left.callback(self.ray.shutdown)
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            quiet = {"logging_level": "ERROR", "log_to_driver": False}
            named = self._address or os.environ.get("RAY_ADDRESS")
            try:
                if named != _OWN:
                    _reach(named or "")
                    self.ray.init(address=named or "auto", **quiet)
            except (OSError, RuntimeError, ValueError) as error:
                if named:
                    reason = str(error).partition("\n")[0]
                    raise WorkerError(f"cannot join the Ray cluster {named}: {reason}", "see: ray status") from error
            if not self.ray.is_initialized():
                self.ray.init(address=_OWN, num_cpus=self.cores, include_dashboard=False, **quiet)
        self.cores = max(1, self.count("CPU"))

    def count(self, resource: str) -> int:
        """Return how many the cluster has of a resource."""
        return int(self.ray.cluster_resources().get(resource, 0))

    def result(self, reference: Any) -> Any:
        """Wait for a result, and return it. Raises WorkerError where there is none for too long."""
        self.wait([reference])
        return self.value(reference)

    def wait(self, references: Sequence[Any]) -> None:
        """Wait until one of them has a result. Raises WorkerError after too long a wait."""
        until = time.monotonic() + self.patience
        while not self.ray.wait(references, timeout=min(SAY_EVERY, self.patience))[0]:
            left = until - time.monotonic()
            if left <= 0:
                raise self.no_work()
            self._say(f"waiting for the Ray cluster: {self._cores()}; {left:.0f} s more at most")

    def no_work(self) -> WorkerError:
        """Return the error that the cluster does nothing."""
        return WorkerError(f"the Ray cluster has done no work for {self.patience:.0f} s: {self._cores()}", _GO_ON)

    def value(self, reference: Any) -> Any:
        """Return a result that is there, or raise what the function has raised, or WorkerError."""
        failures = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except failures.RayTaskError as error:
            raise _meant(error.cause) from None
        except failures.OutOfMemoryError as error:
            raise _out_of_memory() from error
        except failures.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise WorkerError(
                f"a worker of the Ray cluster failed {1 + RETRIES} times: {type(error).__name__}: {reason}", _GO_ON
            ) from error

    def _cores(self) -> str:
        total, free = (of.get("CPU", 0) for of in (self.ray.cluster_resources(), self.ray.available_resources()))
        return f"it has {total:.0f} cores, {free:.0f} free"


class _FirstLines(io.TextIOBase):
    """Says the first line of what is printed: Ray adds dozens of lines of advice."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def write(self, text: str) -> int:
        if line := text.strip().partition("\n")[0].removeprefix("(raylet) "):
            self._say(f"Ray: {line[:200]}")
        return len(text)


def _meant(error: BaseException) -> BaseException:
    """Return what an error of a function means to a user."""
    if isinstance(error, MemoryError):
        return _out_of_memory()
    if isinstance(error, FileNotFoundError) and error.filename and Path(error.filename).exists():
        return WorkerError(
            f"a node of the Ray cluster does not see {error.filename}",
            "store and sources need the same path on all nodes, as on a shared file system",
        )
    return error


def _out_of_memory() -> WorkerError:
    return out_of_memory("a worker of the Ray cluster", "let each node do less at once: ray start --num-cpus=FEWER")


def _reach(address: str) -> None:
    """Raise OSError where nobody answers at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def check_version(version: str) -> None:
    """Raise WorkerError where a worker has another version than the build."""
    if version != __version__:
        raise WorkerError(
            f"a Ray worker has stepsearch-data {__version__}, and this build {version}", "install the same on all nodes"
        )

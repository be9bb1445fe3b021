"""A Ray cluster of several nodes, which this machine plays, and builds on it that meet a fault."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

QUIET = {"include_dashboard": False}


class Nodes:
    """A head without cores, and nodes of one core each."""

    def __init__(self, count: int, **of_node: Any) -> None:
        from ray.cluster_utils import Cluster

        self._of_node = {"num_cpus": 1, **of_node}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **QUIET})
        self.address: str = self._cluster.address
        self._nodes = [self._add() for _ in range(count)]

    def _add(self) -> Any:
        return self._cluster.add_node(**self._of_node)

    def kill_worker(self, chance: random.Random) -> bool:
        """Kill a worker with SIGKILL. Return False where none works."""
        working = workers()
        if working:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(working), signal.SIGKILL)
        return bool(working)

    def lose_node(self, chance: random.Random) -> bool:
        """Kill all processes of a node with SIGKILL."""
        self._cluster.remove_node(self._nodes.pop(chance.randrange(len(self._nodes))), allow_graceful=False)
        return True

    def mend(self, count: int) -> None:
        """Add nodes until there are so many again."""
        self._nodes += [self._add() for _ in range(count - len(self._nodes))]

    def close(self) -> None:
        """End the cluster."""
        self._cluster.shutdown()


@contextmanager
def nodes(count: int, **of_node: Any) -> Iterator[Nodes]:
    """Start a cluster of so many nodes, each with these arguments of `ray start`."""
    opened = Nodes(count, **of_node)
    try:
        yield opened
    finally:
        opened.close()


def workers(name: bytes = b"ray::_work") -> list[int]:
    """Return the workers of clusters that this process has started, which do or have done such tasks."""
    parents, named = {}, []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            process = int(path.name)
            parents[process] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if (path / "cmdline").read_bytes().startswith((name, b"ray::IDLE")):
                named.append(process)
    return [process for process in named if os.getpid() in _ancestors(process, parents)]


def _ancestors(process: int, parents: dict[int, int]) -> Iterator[int]:
    while process := parents.get(process, 0):
        yield process


def start(store: Path, address: str, *arguments: str | Path, **env: str) -> subprocess.Popen[str]:
    """Start a quiet build on a cluster."""
    command = [sys.executable, "-m", "stepsearch_data", "build", "--quiet", "--store", store, "--executor", "ray"]
    settings = ["--set", f"run.address={address}"]
    return subprocess.Popen(
        [*map(str, command), *settings, *map(str, arguments)],
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(build: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str]:
    """Return a build's exit code, and its stderr without lines of Ray's core, which tells of what it makes again."""
    try:
        _, errors = build.communicate(timeout=timeout)
    finally:
        build.kill()
    return build.returncode, "".join(line for line in errors.splitlines(keepends=True) if "core_worker.cc" not in line)


def strike(build: subprocess.Popen[str], store: Path, after: float, fault: Callable[[], bool]) -> bool:
    """Do a fault so many seconds after a build has locked its store, or later: until it is done, or the build ends."""
    while not (store / ".lock").exists() and build.poll() is None:
        time.sleep(0.01)
    time.sleep(after)
    while build.poll() is None:
        if fault():
            return True
        time.sleep(0.05)
    return False

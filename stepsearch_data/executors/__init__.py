"""Where work that asks no model runs: in this process, in processes of this machine, or on a Ray cluster.

An executor applies a function to items and returns the results in the order of the items. So a result does not depend
on where the work is done. The function is pickled once per call of `map`, items and results once each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from stepsearch_data.executors.executor import INLINE, Copies, Executor, Parts, WorkerError
from stepsearch_data.executors.worker import few_collections

__all__ = ["INLINE", "Copies", "Executor", "Name", "Parts", "WorkerError", "few_collections", "open_executor"]

Name = Literal["inline", "processes", "ray"]


def open_executor(
    name: Name,
    workers: int,
    preload: Sequence[str] = (),
    address: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Executor:
    """Return the executor of that name. It starts its workers when it has work for them.

    `workers` is the number of processes, which import the modules `preload` once for all, or of the cores of a Ray
    cluster that is started here. `address` is that of a running one. `say` is told what is waited for. Raises
    ConfigError where Ray is not installed.
    """
    if name == "ray":
        from stepsearch_data.executors.on_ray import OnRay

        return OnRay(workers, address, say)
    if name == "processes" and workers > 1:
        from stepsearch_data.executors.processes import Processes

        return Processes(workers, preload)
    return INLINE

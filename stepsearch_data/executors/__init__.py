"""Where work that asks no model runs: in this process, or in processes of this machine.

An executor applies a function to items and returns the results in the order of the items. So a result does not depend
on where the work is done. The function is pickled once per call of `map`, items and results once each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stepsearch_data.executors.executor import INLINE, Executor, WorkerError

__all__ = ["INLINE", "Executor", "Name", "WorkerError", "open_executor"]

Name = Literal["inline", "processes"]


def open_executor(name: Name, workers: int, preload: Sequence[str] = ()) -> Executor:
    """Return the executor of that name. It starts its workers when it has work for them.

    `workers` is the number of processes, which import the modules `preload` once for all.
    """
    if name == "processes" and workers > 1:
        from stepsearch_data.executors.processes import Processes

        return Processes(workers, preload)
    return INLINE

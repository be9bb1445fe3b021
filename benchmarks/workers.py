"""How much faster two workers are than one process, stage by stage.

Builds one synthetic world in turns: in one process, and with two workers of each executor. Prints the median seconds of
each stage, how many times as fast the workers were, and for whom the processors worked: the build's main thread, which
nothing can share, its other threads, and the workers. `start` is what a build takes beside its stages:

    python benchmarks/workers.py [--executors processes ray] [--questions 25000] [--runs 3]

Seconds on the clock tell something on a quiet machine of two cores or more; those of the processors on a busy one too.
The last figure follows from them: how many times as fast two cores can do that work as one, where the main thread never
works at the same time as the workers. What workers cost shows in the sum, beside that of one process. `ray` needs the
extra of that name, and starts a cluster of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.scale import CLI, finished, make, processors, seconds_of

PAUSE = 0.05  # seconds between two looks at the processes


class Seconds(NamedTuple):
    """What a stage took: on the clock, and of the processors: the build's main thread, its others, and workers."""

    clock: float = 0.0
    main: float = 0.0
    threads: float = 0.0
    workers: float = 0.0

    @property
    def busy(self) -> float:
        """Return the seconds of all processors."""
        return sum(self[1:])


def build(world: Path, store: Path, executor: str, workers: int) -> dict[str, Seconds]:
    """Build into a fresh store. Return what each stage took, the start, and all."""
    shutil.rmtree(store, ignore_errors=True)
    how = ["--executor", executor, "--workers", str(workers), "--set", "run.address=local"]
    begun = time.perf_counter()
    process = subprocess.Popen([*CLI, "build", "--quiet", "--store", store, "--source", f"musique={world}", *how])
    ends: dict[str, Seconds] = {}
    seen = Seconds()
    while process.poll() is None:
        seen = Seconds(*map(max, seen, look(process.pid)))
        ends.update(dict.fromkeys(finished(store)[len(ends) :], seen))
        time.sleep(PAUSE)
    if process.returncode:
        sys.exit(f"the build failed with status {process.returncode}")
    ends.update(dict.fromkeys(finished(store)[len(ends) :], seen))
    records = map(json.loads, (store / "log" / "builds.jsonl").read_text().splitlines())
    clock = {str(record["stage"]): float(record["seconds"]) for record in records}
    every = seen._replace(clock=time.perf_counter() - begun)
    befores = [Seconds(), *ends.values()]
    took = {
        stage: Seconds(clock[stage], *(now - then for now, then in zip(end[1:], before[1:], strict=True)))
        for (stage, end), before in zip(ends.items(), befores, strict=False)
    }
    return {**took, "start": Seconds(every.clock - sum(clock.values())), "all": every}


def look(build: int) -> Seconds:
    """Return what the processors have done for a build so far; nothing is seen without /proc."""
    of_all, main = processors(build), 0.0
    with suppress(OSError):
        # [:2]: without those of children
        main = sum(seconds_of(Path(f"/proc/{build}/task/{build}/stat"))[:2])
        own = sum(seconds_of(Path(f"/proc/{build}/stat"))[:2])
        return Seconds(0.0, main, own - main, sum(of_all.values()) - own)
    return Seconds()


def compare(one: Sequence[Seconds], two: Sequence[Seconds]) -> str:
    """Return a table's cells: what two workers took, how many times as fast they were, and how many they can be."""
    alone, shared = (Seconds(*map(statistics.median, zip(*runs, strict=True))) for runs in (one, two))
    clock = f"{shared.clock:>7.1f} s ({alone.clock / shared.clock:.2f} ×)"
    if not shared.busy:
        return clock
    most = shared.busy / (shared.main + (shared.threads + shared.workers) / 2)
    return f"{clock}{shared.main:>7.1f}{shared.threads:>8.1f}{shared.workers:>8.1f} s ({most:.2f} ×)"


def main() -> None:
    """Run the builds, and print a line per stage and executor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", nargs="+", choices=("processes", "ray"), default=["processes"])
    parser.add_argument("--questions", type=int, default=25_000)
    parser.add_argument("--runs", type=int, default=3, help="builds of each kind; medians are printed")
    options = parser.parse_args()
    kinds = {"inline": 1, **dict.fromkeys(options.executors, 2)}
    runs: dict[str, list[dict[str, Seconds]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        world, store = make(options.questions, Path(folder)), Path(folder, "store")
        for _ in range(options.runs):
            for kind, workers in kinds.items():
                runs[kind].append(build(world, store, kind, workers))
    print(f"{'':<25}one process{'':<9}two workers   of the processors: main thread, others, workers")
    for stage in runs["inline"][0]:
        one = [run[stage] for run in runs["inline"]]
        clock, busy = (statistics.median(figures) for figures in ((s.clock for s in one), (s.busy for s in one)))
        for kind in options.executors:
            told = compare(one, [run[stage] for run in runs[kind]])
            print(f"{stage:<13}{kind:<10}{clock:>6.1f} s, busy {busy:>5.1f} {told}")


if __name__ == "__main__":
    main()

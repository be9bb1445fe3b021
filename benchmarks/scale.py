"""How a whole offline build grows with the number of questions.

Makes synthetic worlds of two sizes (as many as 5.6 paragraphs per question, 20 shown with each),
builds each in a process of its own, and prints wall time, peak memory and the exponent of growth. Options
after `--` are those of `stepsearch-data build`:

    python benchmarks/scale.py [--sizes 2500 25000] [--runs 3] [-- --workers 1]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

CLI = (sys.executable, "-m", "stepsearch_data")
PARAGRAPHS_A_QUESTION = 5.6
MIB = 1 << 20


class Measured(NamedTuple):
    """One build: wall seconds, and the peak of the memory of its process and, on Linux, of all that it started."""

    seconds: float
    peak: float
    peak_of_all: float


def measure(world: Path, store: Path, options: list[str]) -> Measured:
    """Build into a fresh store."""
    shutil.rmtree(store, ignore_errors=True)
    start = time.perf_counter()
    command: list[str | Path] = [*CLI, "build", "--quiet", "--store", store, "--source", f"musique={world}", *options]
    process = subprocess.Popen(command)
    peak_of_all = 0.0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        peak_of_all = max(peak_of_all, memory(process.pid))
        time.sleep(0.2)
    _, status, usage = ended
    if status:
        sys.exit(f"the build failed with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(time.perf_counter() - start, usage.ru_maxrss * unit / MIB, peak_of_all)


def memory(root: int) -> float:
    """Return the MiB of a process and its descendants; each holds its part of shared pages. 0 without /proc."""
    parents: dict[int, int] = {}
    total = 0
    with suppress(OSError):
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    for process in parents:
        ancestor: int | None = process
        while ancestor and ancestor != root:
            ancestor = parents.get(ancestor)
        if ancestor:
            with suppress(OSError):
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def stages(store: Path) -> str:
    """Return the seconds of each stage, from the store's log."""
    records = [json.loads(line) for line in (store / "log" / "builds.jsonl").read_text().splitlines()]
    return ", ".join(f"{record['stage']} {record['seconds']:.1f}" for record in records)


def main() -> None:
    """Run the benchmark and print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=2, default=(2_500, 25_000), help="numbers of questions")
    parser.add_argument("--runs", type=int, default=3, help="builds of each size; the median is printed")
    parser.add_argument("build", nargs="*", help="options of the builds, after --")
    options = parser.parse_args()
    medians = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            world, store = Path(folder, f"{size}.jsonl.gz"), Path(folder, "store")
            paragraphs = str(round(size * PARAGRAPHS_A_QUESTION))
            subprocess.run(
                [*CLI, "synth", "--quiet", "--questions", str(size), "--paragraphs", paragraphs, "--output", world],
                check=True,
            )
            runs = [measure(world, store, options.build) for _ in range(options.runs)]
            seconds = [run.seconds for run in runs]
            medians.append(statistics.median(seconds))
            print(
                f"{size:>7,} questions, {int(paragraphs):>7,} paragraphs: median {medians[-1]:.1f} s "
                f"(min {min(seconds):.1f}, max {max(seconds):.1f}), peak {max(run.peak for run in runs):,.0f} MiB, "
                f"of all processes {max(run.peak_of_all for run in runs):,.0f} MiB"
            )
            print(f"        last run, seconds: {stages(store)}")
    small, large = options.sizes
    print(f"growth: n^{math.log(medians[1] / medians[0]) / math.log(large / small):.2f}")


if __name__ == "__main__":
    main()

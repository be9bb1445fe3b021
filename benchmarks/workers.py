"""How much faster two workers are than one process, stage by stage.

Builds one synthetic world in turns: in one process, and with two workers of each executor. Prints the median seconds of
each stage, and how many times as fast the workers were. Run it on a quiet machine of two cores or more:

    python benchmarks/workers.py [--executors processes ray] [--questions 25000] [--runs 3]

`ray` needs the extra of that name, and starts a cluster of its own. `start` is what a build takes beside its stages.
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
from pathlib import Path

CLI = (sys.executable, "-m", "stepsearch_data")
PARAGRAPHS_A_QUESTION = 5.6


def build(world: Path, store: Path, executor: str, workers: int) -> dict[str, float]:
    """Build into a fresh store. Return the seconds of each stage, of the start, and of all."""
    shutil.rmtree(store, ignore_errors=True)
    how = ["--executor", executor, "--workers", str(workers), "--set", "run.address=local"]
    begun = time.perf_counter()
    subprocess.run([*CLI, "build", "--quiet", "--store", store, "--source", f"musique={world}", *how], check=True)
    taken = time.perf_counter() - begun
    records = map(json.loads, (store / "log" / "builds.jsonl").read_text().splitlines())
    stages = {str(record["stage"]): float(record["seconds"]) for record in records}
    return {**stages, "start": taken - sum(stages.values()), "all": taken}


def main() -> None:
    """Run the builds, and print a line per stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", nargs="+", choices=("processes", "ray"), default=["processes"])
    parser.add_argument("--questions", type=int, default=25_000)
    parser.add_argument("--runs", type=int, default=3, help="builds of each kind; medians are printed")
    options = parser.parse_args()
    kinds = {"inline": 1, **dict.fromkeys(options.executors, 2)}
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        world, store = Path(folder, "world.jsonl.gz"), Path(folder, "store")
        paragraphs = str(round(options.questions * PARAGRAPHS_A_QUESTION))
        size = ["--questions", str(options.questions), "--paragraphs", paragraphs]
        subprocess.run([*CLI, "synth", "--quiet", *size, "--output", world], check=True)
        for _ in range(options.runs):
            for kind, workers in kinds.items():
                runs[kind].append(build(world, store, kind, workers))
    for stage in runs["inline"][0]:
        median = {kind: statistics.median(run[stage] for run in runs[kind]) for kind in kinds}
        one = median.pop("inline")
        others = ", ".join(f"{kind} {took:.1f} s ({one / took:.2f} ×)" for kind, took in median.items())
        print(f"{stage:<13} one process {one:.1f} s; two workers: {others}")


if __name__ == "__main__":
    main()

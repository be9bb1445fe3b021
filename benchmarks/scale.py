"""How a whole offline build grows with the number of questions.

Makes synthetic worlds of two sizes (as many as 5.6 paragraphs a question, 20 shown with each),
builds each in a process of its own, and prints wall time, peak memory and the exponent of growth:

    python benchmarks/scale.py [--sizes 2500 25000] [--runs 3]
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
from pathlib import Path

CLI = (sys.executable, "-m", "stepsearch_data")
PARAGRAPHS_A_QUESTION = 5.6
MIB = 1 << 20


def measure(world: Path, store: Path) -> tuple[float, float]:
    """Return wall seconds and peak resident MiB of one build into a fresh store."""
    shutil.rmtree(store, ignore_errors=True)
    start = time.perf_counter()
    process = subprocess.Popen([*CLI, "build", "--quiet", "--store", store, "--source", f"musique={world}"])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the build failed with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit / MIB


def stages(store: Path) -> str:
    """Return the seconds of each stage, from the store's log."""
    records = [json.loads(line) for line in (store / "log" / "builds.jsonl").read_text().splitlines()]
    return ", ".join(f"{record['stage']} {record['seconds']:.1f}" for record in records)


def main() -> None:
    """Run the benchmark and print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=2, default=(2_500, 25_000), help="numbers of questions")
    parser.add_argument("--runs", type=int, default=3, help="builds of each size; the median is printed")
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
            runs = [measure(world, store) for _ in range(options.runs)]
            seconds = [wall for wall, _ in runs]
            medians.append(statistics.median(seconds))
            print(
                f"{size:>7,} questions, {int(paragraphs):>7,} paragraphs: median {medians[-1]:.1f} s "
                f"(min {min(seconds):.1f}, max {max(seconds):.1f}), peak {max(peak for _, peak in runs):,.0f} MiB"
            )
            print(f"        last run, seconds: {stages(store)}")
    small, large = options.sizes
    print(f"growth: n^{math.log(medians[1] / medians[0]) / math.log(large / small):.2f}")


if __name__ == "__main__":
    main()

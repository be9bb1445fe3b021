"""How a whole offline build grows with the number of questions.

Makes synthetic worlds of two sizes (as many as 5.6 paragraphs per question, 20 shown with each),
builds each in a process of its own, and prints wall time, peak memory and the exponent of growth; then, of the last
build of each size, what every stage took: seconds of the processors, and memory of the build's own process, of its
workers, and of files that they map. `--worlds` keeps the worlds in a folder, or uses those that are there. Options
after `--` are those of `stepsearch-data build`:

    python benchmarks/scale.py [--sizes 2500 25000] [--runs 3] [--worlds FOLDER] [-- --workers 1]
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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

CLI = (sys.executable, "-m", "stepsearch_data")
PARAGRAPHS_A_QUESTION = 5.6
MIB = 1 << 20
PAUSE = 0.2  # seconds between two looks at the processes


class Seen(NamedTuple):
    """What a process and its descendants have used so far: seconds of the processors, and now: MiB of memory.

    Memory of files that are mapped is no part of `own` and `workers`: the system takes it back when it needs it.
    """

    seconds: float = 0.0
    own: float = 0.0
    workers: float = 0.0
    files: float = 0.0


class Measured(NamedTuple):
    """One build: its wall time in seconds, the peak of its process in MiB, and what each stage used at most."""

    seconds: float
    peak: float
    stages: dict[str, Seen]
    peak_of_all: float


def measure(world: Path, store: Path, options: list[str]) -> Measured:
    """Build into a fresh store."""
    shutil.rmtree(store, ignore_errors=True)
    start = time.perf_counter()
    command: list[str | Path] = [*CLI, "build", "--quiet", "--store", store, "--source", f"musique={world}", *options]
    process = subprocess.Popen(command)
    stages: dict[str, Seen] = {}
    begun, peak, peak_of_all = 0.0, Seen(), 0.0
    running = True
    while running:
        ended = os.wait4(process.pid, os.WNOHANG)
        running = not ended[0]
        seen = look(process.pid) if running else peak
        peak_of_all = max(peak_of_all, sum(seen[1:]))
        for stage in finished(store)[len(stages) :]:  # what it did after the look before this one is not its own
            stages[stage] = peak._replace(seconds=peak.seconds - begun)
            begun, peak = peak.seconds, Seen(seconds=peak.seconds)
        peak = Seen(*map(max, peak, seen))
        time.sleep(PAUSE)
    _, status, usage = ended
    if status:
        sys.exit(f"the build failed with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(time.perf_counter() - start, usage.ru_maxrss * unit / MIB, stages, peak_of_all)


def look(root: int) -> Seen:
    """Look at a process and its descendants; each holds its part of shared pages. Nothing is seen without /proc."""
    total = Seen()
    for process, seconds in processors(root).items():
        anonymous, files = memory(process)
        own, workers = (anonymous, 0.0) if process == root else (0.0, anonymous)
        total = Seen(*map(sum, zip(total, (seconds, own, workers, files), strict=True)))
    return total


def processors(root: int) -> dict[int, float]:
    """Return what a process and its descendants have used of the processors: seconds, with children that ended."""
    found: dict[int, float] = {}
    waiting = [root]
    while waiting:
        process = waiting.pop()
        with suppress(OSError):
            folder = Path(f"/proc/{process}")
            found[process] = sum(seconds_of(folder / "stat"))
            waiting += [int(child) for path in folder.glob("task/*/children") for child in path.read_text().split()]
    return found


def seconds_of(stat: Path) -> list[float]:
    """Return what a process or a thread has used of the processors: itself and for the system; so its children."""
    ticks = stat.read_text().rpartition(")")[2].split()[11:15]
    return [int(used) / os.sysconf("SC_CLK_TCK") for used in ticks]


def memory(process: int) -> tuple[float, float]:
    """Return a process's MiB of memory, and those of files that it maps; its part of what it shares."""
    held = {"Pss": 0, "Pss_File": 0}
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, size = line.partition(":")
            held[name] = int(size.split()[0])
    return (held["Pss"] - held["Pss_File"]) / 1024, held["Pss_File"] / 1024


def finished(store: Path) -> list[str]:
    """Return the stages that the store's log names."""
    with suppress(OSError):
        return [json.loads(line)["stage"] for line in (store / "log" / "builds.jsonl").read_text().splitlines()]
    return []


def seconds(store: Path) -> str:
    """Return the seconds of each stage, from the store's log."""
    records = [json.loads(line) for line in (store / "log" / "builds.jsonl").read_text().splitlines()]
    return ", ".join(f"{record['stage']} {record['seconds']:.1f}" for record in records)


def compare(sizes: Sequence[int], small: dict[str, Seen], large: dict[str, Seen]) -> Iterator[str]:
    """Yield a table of what every stage used at both sizes, how its seconds grow, and what each question adds."""
    columns = f"{'seconds of processors':>25}{'MiB of the build':>26}{'of workers':>26}{'of mapped files':>26}"
    yield f"{'stage':<13}{columns}   (and KiB per question)"
    for stage, one in small.items():
        other = large[stage]
        grows = f"n^{growth(sizes, one.seconds, other.seconds):.2f}" if min(one.seconds, other.seconds) > 1 else ""
        line = f"{stage:<13}{one.seconds:>7.1f} → {other.seconds:>7.1f}{grows:>7} "
        for before, after in zip(one[1:], other[1:], strict=True):
            added = (after - before) * 1024 / (sizes[1] - sizes[0])
            line += f"{before:>8,.0f} → {after:>7,.0f}{added:>8.2f}"
        yield line


def growth(sizes: Sequence[int], small: float, large: float) -> float:
    """Return by which power of the number of questions a figure grows."""
    return math.log(large / small) / math.log(sizes[1] / sizes[0])


def make(size: int, folder: Path) -> Path:
    """Make the world of so many questions, unless it is there."""
    world = folder / f"{size}.jsonl.gz"
    if not world.exists():
        folder.mkdir(parents=True, exist_ok=True)
        number, paragraphs = str(size), str(paragraphs_of(size))
        made: list[str | Path] = ["--questions", number, "--paragraphs", paragraphs, "--output", world]
        subprocess.run([*CLI, "synth", "--quiet", *made], check=True)
    return world


def paragraphs_of(size: int) -> int:
    """Return how many paragraphs a world of so many questions has."""
    return round(size * PARAGRAPHS_A_QUESTION)


def main() -> None:
    """Run the benchmark and print a line per size, then a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=2, default=(2_500, 25_000), help="numbers of questions")
    parser.add_argument("--runs", type=int, default=3, help="builds of each size; the median is printed")
    parser.add_argument("--worlds", type=Path, help="folder of worlds: those that it lacks are made, and kept")
    parser.add_argument("build", nargs="*", help="options of the builds, after --")
    options = parser.parse_args()
    medians: list[float] = []
    last: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            world, store = make(size, options.worlds or Path(folder)), Path(folder, "store")
            runs = [measure(world, store, options.build) for _ in range(options.runs)]
            taken = [run.seconds for run in runs]
            medians.append(statistics.median(taken))
            last.append(runs[-1])
            print(
                f"{size:>7,} questions, {paragraphs_of(size):>7,} paragraphs: median {medians[-1]:.1f} s "
                f"(min {min(taken):.1f}, max {max(taken):.1f}), peak {max(run.peak for run in runs):,.0f} MiB, "
                f"of all processes {max(run.peak_of_all for run in runs):,.0f} MiB"
            )
            print(f"        last run, seconds: {seconds(store)}", flush=True)
    print(f"growth: n^{growth(options.sizes, *medians):.2f}")
    print(*compare(options.sizes, *(run.stages for run in last)), sep="\n")


if __name__ == "__main__":
    main()

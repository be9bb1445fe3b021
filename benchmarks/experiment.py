"""The second edition of the experiment: variants of StePPO in two worlds, as docs/experiment.md plans it.

    benchmarks/experiment.py [--folder runs/second] [--workers 2] [--parts main …] [--missing | --table]

What has been trained is kept in the folder, and the same command goes on. At its end, or at once with `--table`, the
results that there are go to benchmarks/experiment.csv, and as tables to stdout. With `--missing` only that is trained
whose result this file does not have. Trainings are compared within their folder: on another machine the same seeds can
give other cold starts.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stepsearch_data.core.intervals import Interval  # noqa: E402 - it lies beside this folder
from stepsearch_data.evaluation.plot.runs import load_runs  # noqa: E402 - see above
from stepsearch_data.evaluation.plot.statistics import t_interval  # noqa: E402 - see above

RESULTS = ROOT / "benchmarks" / "experiment.csv"
WORLDS = {"notes": 0, "sentences": 1}
"""How many sentences tell a fact; 0: a note in the words of the questions."""
SEED, PAIRS, START, BASELINE = 20261130, 8, "weak", "outcome only"
MAIN = ("outcome only", "StePPO", "gain+key", "answer gain")
OTHERS = ("both gains", "repeats only", "annealed", "turn-level", "group return")
PARTS = {"main": (MAIN, 40), "others": (OTHERS, 40), "late": (MAIN, 80), "overlap": (("overlap",), 40)}
"""Which variants are trained up to which update, the most telling first."""
BUDGETS = {until for _, until in PARTS.values()}
VARIANTS = tuple(dict.fromkeys(variant for variants, _ in PARTS.values() for variant in variants))
HOPS = (2, 3, 4)


class Row(NamedTuple):
    """A line of the results: held-out exact match, greedy, of all questions and by their hops."""

    folder: str
    world: str
    variant: str
    pair: int
    update: int
    em: float
    em_2_hops: float
    em_3_hops: float
    em_4_hops: float


def load(settings: Sequence[str]) -> Any:
    """Return the settings of the engine."""
    from stepsearch_data.pipeline.config import load_config
    from stepsearch_data.stages import STAGES

    return load_config(STAGES, None, [*settings, "run.workers=1"], {})


def train(folder: Path, parts: Sequence[str], workers: int, known: Sequence[Row]) -> None:
    """Train what is neither known nor there yet; what is compared runs side by side."""
    from stepsearch_data.trainer.demo.experiment import SIZES, STARTS, Job, cold, make_world, processes, run

    start, size = STARTS[START], SIZES["full"]
    have = {row[1:5] for row in known}
    for world, sentences in WORLDS.items():
        make_world(folder / world, SEED, sentences=sentences)
    wanted = {
        part: [
            Job(folder / world, start, variant, pair, replace(size, until=PARTS[part][1]))
            for (world, pair), variant in product(_pairs(), PARTS[part][0])
            if (world, variant, pair, PARTS[part][1]) not in have
        ]
        for part in parts
    }
    starts = dict.fromkeys((job.folder, job.sft_seed) for jobs in wanted.values() for job in jobs)
    with processes(workers) as pool:
        for each in [pool.submit(cold, world, start, pair, size.held_out) for world, pair in starts]:
            say(f"{each.result()} done")
        for jobs in wanted.values():
            for done in as_completed(pool.submit(run, job, load) for job in jobs if not job.is_done):
                say(f"{done.result()} done")


def _pairs() -> Iterator[tuple[str, int]]:
    return ((world, pair) for pair in range(PAIRS) for world in WORLDS)


def results(folder: Path) -> Iterator[Row]:
    """Read what the trainings of a folder measured, but those that are not done."""
    for world in WORLDS:
        runs, _ = load_runs([folder / world / "runs"])
        for run in (run for run in runs if run.lines[-1]["update"] in BUDGETS):
            measured = (line for line in run.lines if "eval_em" in line and line["update"] % 20 == 0)
            for line in measured:
                ems = [round(line[f"eval_em_{hops}_hops"], 4) for hops in HOPS]
                pair, update = run.info.sft_seed or 0, line["update"]
                yield Row(folder.name, world, run.info.variant, pair, update, line["eval_em"], *ems)


def write(rows: Iterable[Row]) -> None:
    """Write the results, in an order that does not depend on when they were made.

    Trainings of another folder, whose results were written before, stay.
    """
    found = {row[:5]: row for row in (*(read() if RESULTS.exists() else ()), *rows)}
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Row._fields)
        table.writerows(sorted(found.values()))


def read() -> list[Row]:
    """Read the results."""
    with open(RESULTS, newline="", encoding="utf-8") as file:
        rows = [*csv.reader(file)][1:]
    return [Row(row[0], row[1], row[2], int(row[3]), int(row[4]), *map(float, row[5:])) for row in rows]


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """Write a table for each folder and world: means by updates, and differences from outcomes only within pairs."""
    for folder, world in product(sorted({row.folder for row in rows}), WORLDS):
        here = [row for row in rows if (row.folder, row.world) == (folder, world)]
        budgets = sorted({row.update for row in here if row.update})
        yield f"| {folder}, facts as {world} | start | " + " | ".join(f"{at} updates" for at in budgets) + " |"
        yield "|---" * (len(budgets) + 2) + "|"
        for variant in VARIANTS:
            if not any(row.variant == variant for row in here):
                continue
            mine = [row for row in here if row.variant == variant]
            yield _line(variant, [0, *budgets], ((row.update, row.em) for row in mine))
            if variant != BASELINE:
                other = {(row.pair, row.update): row.em for row in here if row.variant == BASELINE}
                paired = (row for row in mine if (row.pair, row.update) in other)
                apart = ((row.update, row.em - other[row.pair, row.update]) for row in paired)
                yield _line("difference", budgets, apart, "")
        yield ""


def _line(name: str, budgets: Sequence[int], measured: Iterable[tuple[int, float]], *first: str) -> str:
    values: dict[int, list[float]] = {}
    for update, value in measured:
        values.setdefault(update, []).append(value)
    cells = [_cell(t_interval(values[at]), signed=bool(first)) if at in values else "" for at in budgets]
    return "| " + " | ".join([name, *first, *cells]) + " |"


def _cell(value: Interval, *, signed: bool) -> str:
    def number(value: float) -> str:
        return f"{value:{'+' if signed else ''}.2f}".replace("0.", ".").replace("-", "−")

    ends = "" if value.low is None or value.high is None else f" ({number(value.low)} to {number(value.high)})"
    return f"{number(value.mean)}{ends}"


def say(line: str) -> None:
    """Tell progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train, and show the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/second"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--missing", action="store_true", help="train only what the results do not have")
    parser.add_argument("--table", action="store_true", help="train nothing")
    given = parser.parse_args()
    if not given.table:
        train(given.folder, given.parts, given.workers, read() if given.missing else ())
    if given.folder.exists():
        write(results(given.folder))
    print("\n".join(tables(read())))


if __name__ == "__main__":
    main()

"""Processor seconds of an update in the demo's world: ours, those of another checkout, and of TRL's GRPO.

Each of them is a process of its own on one thread. They take their updates in turns, so that a busy machine slows all,
and what is told is the median of the ratios within a turn:

    benchmarks/updates.py [--updates 10] [--before CHECKOUT] [--grpo] [--overlap] [--late] [--json]

GRPO has the same cold start, questions, number of rollouts and of optimiser steps, our rollouts, and a reference model;
it has no critic. With `--late` two join whose engine needs .05 s for a query, and 1 s for one of twenty: one waits for
it, the other has `async_search`. For these the seconds of the clock count, and the mean reward of the later half tells
whether they harm. With `--overlap` a training that rolls out the next batch meanwhile comes last: its rollouts go on
between updates, so it and ours have the machine to themselves, one after the other, and the clock runs from the first
update's start to the last one's end. Figures are those of the machine that this runs on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PARTS = ("rollout", "score", "advantages", "update")
ROLLOUTS, MINI, GROUP, HELD_OUT = 64, 16, 8, 200
Row = dict[str, float]


class Process:
    """A training in a process of its own, which takes an update when it is asked to."""

    def __init__(self, kind: str, folder: Path, root: Path | None = None) -> None:
        environment = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1"}
        if root:
            environment["PYTHONPATH"] = str(root)
        command = [sys.executable, "-W", "ignore", __file__, "--worker", kind, "--folder", str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def update(self) -> Row:
        """Return the metrics of one more update; `seconds` are the processor's."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = self._process.stdout.readline()
        if not told:
            raise SystemExit(f"a training ended with exit code {self._process.wait()}")
        row: Row = json.loads(told)
        return row

    def end(self) -> None:
        """End it."""
        self._process.communicate()


def late(retrieve: Any) -> Any:
    """Have an engine be slow, and with one of twenty queries very slow."""

    def search(queries: Sequence[str], k: int) -> Any:
        time.sleep(1.0 if any(zlib.crc32(query.encode()) % 20 == 0 for query in queries) else 0.05)
        return retrieve(queries, k)

    return search


def steppo(folder: Path, slow: bool = False, **schedule: Any) -> None:  # noqa: FBT001, FBT002 - of a table below
    """Take an update for each line of stdin."""
    from accelerate import Accelerator

    from stepsearch_data.core.progress import Reporter
    from stepsearch_data.indexes import Choice
    from stepsearch_data.pipeline.config import RunConfig, load_config
    from stepsearch_data.pipeline.store import Store
    from stepsearch_data.stages import STAGES
    from stepsearch_data.templates.files import load_template
    from stepsearch_data.trainer import metrics
    from stepsearch_data.trainer.demo import experiment as demo
    from stepsearch_data.trainer.launch import make_trainer
    from stepsearch_data.trainer.recipe import Model, Recipe
    from stepsearch_data.trainer.retrieval import open_retriever

    def load(first: Any) -> RunConfig:
        return load_config(STAGES, None, [*first, "run.workers=1"], {})

    vars(metrics)["time"] = SimpleNamespace(perf_counter=time.process_time)  # what `Clock` reads
    examples, _ = demo.parts(Store.open(folder / "store"), HELD_OUT)
    start = str(demo.cold(folder, demo.STARTS["weak"], 0, HELD_OUT))
    schedule = {"num_updates": 80, "rollout_batch_size": ROLLOUTS, "eval_steps": 0, "save_steps": 0, **schedule}
    with (
        tempfile.TemporaryDirectory() as output,
        open_retriever(Choice(store=folder / "store"), load(()), load, Reporter(quiet=True)) as (_, retrieve),
    ):
        recipe = Recipe(
            output=Path(output),
            model=Model(path=start),
            schedule=replace(demo.SCHEDULE, **schedule),
            ppo=demo.UPDATE,
            limits=demo.LIMITS,
        )
        template = load_template(str(demo.TEMPLATE))
        engine = late(retrieve) if slow else retrieve
        training = make_trainer(recipe, start, template, examples, [], engine, Accelerator(cpu=True))
        for _ in sys.stdin:
            begun, clock = time.process_time(), time.monotonic()
            row, _, _ = training.training_step()
            tell({**row, "seconds": time.process_time() - begun, "clock": time.monotonic() - clock})


def grpo(folder: Path) -> None:
    """Do the same by TRL's GRPOTrainer."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from stepsearch_data.environments import EnvironmentConfig
    from stepsearch_data.environments.trl import search_reward, tagged_rollouts
    from stepsearch_data.exports.rl import trl_grpo
    from stepsearch_data.pipeline.store import Store
    from stepsearch_data.templates.files import load_template
    from stepsearch_data.trainer.demo import experiment as demo

    steps = ROLLOUTS // MINI

    class Asked(TrainerCallback):
        """Waits for a line before an update, which is some optimiser steps, and tells its seconds after it."""

        def on_step_begin(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            if state.global_step % steps == 0:
                control.should_training_stop = not sys.stdin.readline()
                self.begun = time.process_time()

        def on_step_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            if state.global_step % steps == 0:
                tell({"seconds": time.process_time() - self.begun})

    wording = load_template(str(demo.TEMPLATE))
    config = EnvironmentConfig(str(folder / "store"), template=str(demo.TEMPLATE), **vars(demo.LIMITS))
    examples, _ = demo.parts(Store.open(folder / "store"), HELD_OUT)
    rows = [{**trl_grpo(each, wording)[0], "prompt": wording.opening(each.question)} for each in examples]
    start = str(demo.cold(folder, demo.STARTS["weak"], 0, HELD_OUT))
    with tempfile.TemporaryDirectory() as output:
        arguments = GRPOConfig(
            output,
            report_to="none",
            use_cpu=True,
            bf16=False,
            max_steps=80 * steps,
            per_device_train_batch_size=MINI,
            steps_per_generation=steps,
            num_generations=GROUP,
            learning_rate=demo.SCHEDULE.learning_rate,
            beta=demo.UPDATE.kl_coef,
            max_grad_norm=1.0,
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )
        GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(start),
            search_reward,
            arguments,
            Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(start),
            rollout_func=tagged_rollouts(config),
            callbacks=[Asked()],
        ).train()


def tell(row: Row) -> None:
    """Write a line that `Process.update` reads."""
    print(json.dumps(row), flush=True)


WORKERS: dict[str, Callable[[Path], None]] = {
    "ours": steppo,
    "before": steppo,
    "GRPO (TRL)": grpo,
    "overlap": partial(steppo, overlap=True),
    "late engine": partial(steppo, slow=True),
    "late, async_search": partial(steppo, slow=True, async_search=True),
}


def alone(kind: str, folder: Path, updates: int) -> Row:
    """Time updates that follow each other in one training, after one that warms up; no other runs meanwhile."""
    with running([kind], folder, None) as processes:
        process = processes[kind]
        process.update()
        begun = time.monotonic()
        rows = [process.update() for _ in range(updates)]
        clock = (time.monotonic() - begun) / updates
    return {"clock": clock, "reward": statistics.mean(row["reward"] for row in rows)}


@contextmanager
def running(kinds: list[str], folder: Path, before: Path | None) -> Iterator[dict[str, Process]]:
    """Start the trainings, and end them with the block."""
    processes = {kind: Process(kind, folder, before if kind == "before" else None) for kind in kinds}
    try:
        yield processes
    finally:
        for process in processes.values():
            process.end()


def summary(rows: dict[str, list[Row]]) -> dict[str, dict[str, Any]]:
    """Summarise the updates of each training; the first, which warms up, is left out."""
    found: dict[str, dict[str, Any]] = {}
    for kind, told in rows.items():
        kept = told[1:]
        found[kind] = {"seconds": statistics.median(row["seconds"] for row in kept)}
        if f"seconds_{PARTS[0]}" in told[0]:
            found[kind] |= {part: statistics.median(row[f"seconds_{part}"] for row in kept) for part in PARTS}
        if "clock" in told[0]:
            found[kind]["clock"] = statistics.median(row["clock"] for row in kept)
            found[kind]["reward"] = statistics.mean(row["reward"] for row in told[len(told) // 2 :])
        ratios = sorted(row["seconds"] / mine["seconds"] for row, mine in zip(kept, rows["ours"][1:], strict=True))
        found[kind] |= {"times_ours": statistics.median(ratios), "from": ratios[0], "to": ratios[-1]}
    if "before" in rows:
        pairs = [pair for both in zip(rows["ours"], rows["before"], strict=True) for pair in apart(*both)]
        found["before"]["metrics_apart"] = max(pairs)
    return found


def apart(ours: Row, theirs: Row) -> Iterator[float]:
    """Yield how far the metrics of an update that both have differ, relative to their size where that is above 1."""
    for name in ours.keys() & theirs.keys():
        if "second" not in name:
            yield abs(ours[name] - theirs[name]) / max(1.0, abs(theirs[name]))


def table(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table."""
    head = "".join(f"{part:>12}" for part in PARTS)
    yield f"{'processor s of an update':<24}{'all':>7}{head}   clock  reward   times ours"
    for kind, row in found.items():
        of_parts = "".join(f"{row[part]:12.3f}" if part in row else " " * 12 for part in PARTS)
        of_parts += f"{row['clock']:8.2f}{row['reward']:8.3f}" if "clock" in row else " " * 16
        ratio = f"{row['times_ours']:.2f} ({row['from']:.2f} to {row['to']:.2f})"
        yield f"{kind:<24}{row['seconds']:7.3f}{of_parts}   {ratio}"
        if "metrics_apart" in row:
            yield f"{'':<24}its metrics differ from ours by {row['metrics_apart']:.1e} at most"


def table_alone(found: dict[str, Row]) -> Iterator[str]:
    """Yield the lines of a table of trainings that ran one after the other."""
    yield f"{'alone':<24}  clock  reward"
    for kind, row in found.items():
        yield f"{kind:<24}{row['clock']:7.2f}{row['reward']:8.3f}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=10, help="that are timed")
    parser.add_argument("--folder", type=Path, default=Path("runs/updates"), help="of the world and its cold start")
    parser.add_argument("--before", type=Path, help="another checkout, to compare")
    parser.add_argument("--grpo", action="store_true", help="compare with TRL's GRPOTrainer")
    parser.add_argument("--overlap", action="store_true", help="compare with rollouts of the next batch meanwhile")
    parser.add_argument("--late", action="store_true", help="compare both ways to wait for a slow engine")
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        import torch
        from transformers.utils import logging

        torch.set_num_threads(1)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        WORKERS[given.worker](given.folder)
        return
    from stepsearch_data.trainer.demo.experiment import STARTS, cold, make_world

    make_world(given.folder)
    cold(given.folder, STARTS["weak"], 0, HELD_OUT)
    kinds = ["ours", *["before"] * bool(given.before), *["GRPO (TRL)"] * given.grpo]
    kinds += ["late engine", "late, async_search"] * given.late
    with running(kinds, given.folder, given.before) as processes:
        rounds = [{kind: process.update() for kind, process in processes.items()} for _ in range(given.updates + 1)]
    found = summary({kind: [each[kind] for each in rounds] for kind in kinds})
    by_itself = {kind: alone(kind, given.folder, given.updates) for kind in ("ours", "overlap") if given.overlap}
    lines = [*table(found), *(table_alone(by_itself) if by_itself else ())]
    told = {**found, **({"alone": by_itself} if by_itself else {})}
    print(json.dumps(told, indent=1) if given.json else "\n".join(lines))


if __name__ == "__main__":
    main()

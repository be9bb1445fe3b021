"""What the step rewards are for, on two cores: a made-up world, a tiny model, StePPO against outcome-only PPO.

    world    a synthetic world of some hundred facts, built into a store by the pipeline as any other source is
    start    a model of 140,000 weights learns to search, read and answer, but hardly to plan (see `noise`)
    runs     from the same start, with the same seeds and as many rollouts: one training for each variant
    judge    greedy exact match on held-out compositions of known facts, along the way

Everything that is done is kept: the same command goes on where it stopped, or adds what a larger size wants.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainerCallback
from transformers.utils import logging

from stepsearch_data.core.atomic import place
from stepsearch_data.core.errors import TrainError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.evaluation.plot.chart import draw, write
from stepsearch_data.evaluation.plot.curves import SOLVED_BY, Comparison, Curves
from stepsearch_data.evaluation.plot.runs import load_runs
from stepsearch_data.indexes import Choice, Load
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.config import Limits, PPOConfig, Schedule
from stepsearch_data.trainer.data import demonstration, load_examples
from stepsearch_data.trainer.demo.noise import demonstrations
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer
from stepsearch_data.trainer.launch import make_trainer
from stepsearch_data.trainer.recipe import SFT, Model, Recipe, Rewards
from stepsearch_data.trainer.retrieval import open_retriever
from stepsearch_data.trainer.run_folder import RUN_INFO, RunInfo, checkpoint_name
from stepsearch_data.trainer.sft import cold_start

CURVES = "curves.png"
_BASELINE = "outcome only"
LIMITS = Limits(max_turns=5, topk=1, max_length=400, max_new_tokens=40, max_obs_length=100)
SCHEDULE = Schedule(
    learning_rate=5e-4, vf_learning_rate=1e-3, warmup_ratio=0.05, vf_warmup_ratio=0.0, save_steps=20, save_total_limit=1
)
UPDATE = PPOConfig(mini_batch_size=16, micro_batch_tokens=1024)
TEMPLATE = Path(__file__).with_name("template.txt")


@dataclass(frozen=True)
class Variant:
    """What one kind of training has of its own."""

    rewards: Rewards
    ppo: Mapping[str, Any] = field(default_factory=dict)
    """Settings beside those of all, as in `schedule`."""
    schedule: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = {
    "StePPO": Variant(Rewards()),
    "outcome only": Variant(Rewards(preset="outcome")),
    "gain+key": Variant(Rewards(preset="gain+key")),
    "answer gain": Variant(Rewards(preset="outcome", answer_gain=1)),
    "both gains": Variant(Rewards(preset="gain+key", answer_gain=1)),
    "repeats only": Variant(Rewards(repeated_queries_only=True)),
    "annealed": Variant(Rewards(step_until=40)),
    "turn-level": Variant(Rewards(), ppo={"turn_level_gae": True, "lam": 0.9}),
    "group return": Variant(Rewards(), ppo={"group_size": 8}),
    "overlap": Variant(Rewards(preset="gain+key"), schedule={"overlap": True}),
    "no key": Variant(Rewards(without=["key"])),
    "no gain": Variant(Rewards(without=["gain"])),
    "no step": Variant(Rewards(without=["step"])),
    "reference": Variant(Rewards(preset="reference")),
}
"""What is compared. `gain+key` keeps the gain without the penalty, `no gain` the penalty without the gain."""


@dataclass(frozen=True)
class Start:
    """A cold start: how often a step of its demonstrations is right on purpose, and how long is trained from it."""

    name: str
    right: float
    updates: int
    """Of the whole schedule."""
    steps: int = 1000
    """Of the cold start itself."""


STARTS = {start.name: start for start in (Start("weak", 0.1, 80), Start("strong", 0.4, 40))}


@dataclass(frozen=True)
class Size:
    """How much of the experiment is run."""

    starts: Sequence[str]
    variants: Sequence[str]
    sft_seeds: int
    """Cold starts of each kind. A pair that has a start of its own says more than another seed from the same start."""
    rollouts: int = 64
    eval_every: int = 20
    held_out: int = 200
    until: int = 80
    """Updates after which a training stops, where its schedule is longer; a larger size continues it."""

    @property
    def budgets(self) -> range:
        """Return the updates after which held-out questions are asked."""
        return range(self.eval_every, self.until + 1, self.eval_every)


SOLVED = 0.5
"""Held-out exact match from which on a run has solved the world: few come to more in so few updates."""

SIZES = {
    "quick": Size(("weak",), ("StePPO", "outcome only", "gain+key"), 1, until=40),
    "full": Size(("weak", "strong"), tuple(VARIANTS), 8),
}


@dataclass(frozen=True)
class Job:
    """One training."""

    folder: Path
    start: Start
    variant: str
    sft_seed: int
    size: Size

    @property
    def output(self) -> Path:
        """Return the folder of its run."""
        return self.folder / "runs" / self.start.name / f"{self.variant.replace(' ', '-')}-{self.sft_seed}"

    @property
    def end(self) -> int:
        """Return the update after which it stops."""
        return min(self.start.updates, self.size.until)

    @property
    def is_done(self) -> bool:
        """Tell whether it has been trained so far, or further."""
        return any(each.name >= checkpoint_name(self.end) for each in self.output.glob("checkpoint-*"))


def jobs(folder: Path, size: Size) -> Iterator[Job]:
    """Yield all trainings of a size; what is compared runs side by side."""
    for start, sft_seed, variant in product(size.starts, range(size.sft_seeds), size.variants):
        yield Job(folder, STARTS[start], variant, sft_seed, size)


def make_world(folder: Path, seed: int = 1, questions: int = 1500, facts: int = 300, *, sentences: int = 0) -> Store:
    """Build the store of a world of chains of two to four facts, as a user would build it; keep one that is there.

    Facts are notes in the words of the questions, or are told in so many sentences.

    Raises TrainError, also for a folder with another world.
    """
    from stepsearch_data.synth import WorldConfig, write_world

    file, store = folder / f"world-{seed}.jsonl", folder / "store"
    if store.exists() and not file.exists():
        raise TrainError(f"{folder} holds another world", "choose another --output, or the --seed of that world")
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        chains, kinds = ("2hop", "3hop1", "4hop1"), ("person", "city", "country")
        write_world(WorldConfig(questions, facts, seed=seed, sentences=sentences, shapes=chains, kinds=kinds), file)
    command = [sys.executable, "-m", "stepsearch_data", "build", "--store", str(store), "--source", f"musique={file}"]
    settings = ["--set", f"trajectories.documents={LIMITS.topk}", "--set", "queries.per_sub_question=1"]
    built = subprocess.run([*command, *settings, "--quiet"], check=False)  # noqa: S603 - our own command
    if built.returncode:
        raise TrainError(f"the demo's world could not be built into {store}")
    return Store.open(store)


def parts(store: Store, held_out: int) -> tuple[list[Example], list[Example]]:
    """Split the questions into those to train on and held-out ones: other compositions of the same facts.

    No chain of facts that is held out is a part of one to train on.
    """
    examples = list(load_examples(store, "train"))
    random.Random(0).shuffle(examples)
    asked = {_facts(each) for each in examples[:held_out]}
    return [each for each in examples[held_out:] if asked.isdisjoint(_within(_facts(each)))], examples[:held_out]


def _facts(example: Example) -> tuple[str, ...]:
    return tuple(step.gold[0].text for step in example.steps)


def _within(chain: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield all parts of a chain without a gap, the whole included."""
    return (chain[first:last] for first in range(len(chain)) for last in range(first + 1, len(chain) + 1))


def cold(folder: Path, start: Start, seed: int, held_out: int, threads: int = 1) -> Path:
    """Return the folder of a cold start; train it if it is not there."""
    output = folder / "starts" / f"{start.name}-{seed}"
    if not output.exists():
        _quiet(threads)
        template = load_template(str(TEMPLATE))
        examples, _ = parts(Store.open(folder / "store"), held_out)
        tokenizer = make_tokenizer(text for each in examples for text, _ in demonstration(each, template))
        model = make_model(tokenizer, seed=seed)
        shown = demonstrations(examples, start.right, seed)
        config = SFT(
            max_steps=start.steps,
            batch_size=16,
            micro_batch_size=16,
            learning_rate=4e-3,
            max_length=LIMITS.max_length,
            seed=seed,
        )
        part = output.with_name(f".{output.name}")
        cold_start(model, tokenizer, shown, template, part, config, use_cpu=True)
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        place(part, output)
    return output


def run(job: Job, load: Load) -> Path:
    """Train one variant from its cold start, from where it was left; return the folder of its run."""
    _quiet()
    size = job.size
    examples, held_out = parts(Store.open(job.folder / "store"), size.held_out)
    start = str(cold(job.folder, job.start, job.sft_seed, size.held_out))
    budget: dict[str, Any] = {
        "num_updates": job.start.updates,
        "rollout_batch_size": size.rollouts,
        "eval_steps": size.eval_every,
    }
    variant = VARIANTS[job.variant]
    budget |= variant.schedule
    recipe = Recipe(
        output=job.output,
        model=Model(path=start),
        schedule=replace(SCHEDULE, seed=1000 * job.sft_seed, **budget),
        ppo=replace(UPDATE, **variant.ppo),
        limits=LIMITS,
        rewards=variant.rewards,
    )
    info = RunInfo(variant=job.variant, start=job.start.name, sft_seed=job.sft_seed)
    job.output.mkdir(parents=True, exist_ok=True)
    (job.output / RUN_INFO).write_text(info.model_dump_json(), encoding="utf-8")
    with open_retriever(Choice(store=job.folder / "store"), load(()), load, Reporter(quiet=True)) as (_, retrieve):
        template, accelerator = load_template(str(TEMPLATE)), Accelerator(cpu=True)
        training = make_trainer(recipe, start, template, examples, held_out, retrieve, accelerator)
        training.resume()
        training.callbacks = [_StopAfter(job.end)]
        training.train()
    return job.output


class _StopAfter(TrainerCallback):
    """Ends a training after an update of its schedule."""

    def __init__(self, update: int) -> None:
        self._update = update

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers' names
        """See `TrainerCallback`."""
        control.should_training_stop = state.global_step >= self._update


def experiment(
    folder: Path, size: Size, load: Load, workers: int, say: Callable[[str], None], *, seed: int = 1
) -> list[Path]:
    """Run all trainings of a size that are not done yet, so many at a time; return the folders of all.

    `seed` is the world's.
    """
    make_world(folder, seed)
    wanted = list(jobs(folder, size))
    starts = dict.fromkeys((job.start, job.sft_seed) for job in wanted)
    with processes(workers) as pool:
        threads = max(1, workers // len(starts))
        cooling = [pool.submit(cold, folder, start, seed, size.held_out, threads) for start, seed in starts]
        for each in cooling:
            say(f"{each.result().relative_to(folder)} done")
        running = {pool.submit(run, job, load): job for job in wanted if not job.is_done}
        for each in as_completed(running):
            say(f"{each.result().relative_to(folder)} done")
    return [job.output for job in wanted]


def demonstrate(
    folder: Path, size: str, load: Load, workers: int, say: Callable[[str], None], *, seed: int
) -> Comparison:
    """Run the experiment, draw its curves into the folder, and compare the variants with outcome-only PPO.

    Raises StepSearchError; the same command goes on.
    """
    runs, notes = load_runs(experiment(folder, SIZES[size], load, workers, say, seed=seed))
    curves = Curves(runs, [SOLVED_BY])
    compared = curves.compare(SIZES[size].budgets, _BASELINE, SOLVED)
    write(draw([*curves.bands()], curves.axis, against=_BASELINE), folder / CURVES)
    for line in (*notes, *curves.notes, f"wrote {folder / CURVES}"):
        say(line)
    return compared


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of so many processes.

    They end at once where the block is interrupted or fails: checkpoints hold what they did.
    """
    ignore = (signal.SIGINT, signal.SIG_IGN)  # interrupts are for the parent
    with ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=signal.signal, initargs=ignore
    ) as pool:
        try:
            yield pool
        except BaseException:
            for process in active_children():
                process.terminate()
            raise


def _quiet(threads: int = 1) -> None:
    """Limit a process to so many threads: there are as many processes as cores, but where one start is for all."""
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

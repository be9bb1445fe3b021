"""What the step rewards are for, on two cores: a made-up world, a tiny model, StePPO against outcome-only PPO.

    world    a synthetic world of some hundred facts, built into a store by the pipeline as any other source is
    start    a model of some ten thousand weights learns to search, read and answer, but hardly to plan (see `noise`)
    runs     from the same start, with the same seeds and as many rollouts: one training for each variant
    judge    greedy exact match on held-out compositions of known facts, along the way

Everything that is done is kept: the same command goes on where it stopped, or adds what a larger size wants.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepsearch_data.pipeline.errors import TrainError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.trainer.recipe import Rewards

TEMPLATE = Path(__file__).with_name("template.txt")
VARIANTS = {
    "StePPO": Rewards(),
    "outcome only": Rewards(preset="outcome"),
    "no key": Rewards(without=["key"]),
    "no gain": Rewards(without=["gain"]),
    "no penalty": Rewards(without=["penalty"]),
    "no step": Rewards(without=["step"]),
    "released": Rewards(preset="released"),
}
"""What is compared. `no gain` and `no penalty` keep the other part of the step reward."""


@dataclass(frozen=True)
class Start:
    """A cold start: how often a step of its demonstrations is the right one."""

    name: str
    right: float
    steps: int


STARTS = {start.name: start for start in (Start("weak", 0.2, 800), Start("strong", 0.6, 800))}


@dataclass(frozen=True)
class Size:
    """How much of the experiment is run."""

    starts: Sequence[str]
    variants: Sequence[str]
    sft_seeds: int
    seeds: int
    """For each seed of the cold start."""
    updates: int
    rollouts: int = 128
    eval_every: int = 10
    held_out: int = 200


SIZES = {
    "quick": Size(("weak",), ("StePPO", "outcome only"), 1, 1, 60),
    "full": Size(("weak", "strong"), tuple(VARIANTS), 2, 4, 120),
}


@dataclass(frozen=True)
class Job:
    """One training."""

    folder: Path
    start: str
    variant: str
    sft_seed: int
    seed: int
    size: Size

    @property
    def output(self) -> Path:
        """Where its run lies."""
        return self.folder / "runs" / self.start / f"{self.variant.replace(' ', '-')}-{self.sft_seed}{self.seed}"

    @property
    def is_done(self) -> bool:
        """Whether it has been trained to its end."""
        return (self.output / f"checkpoint-{self.size.updates:06}").is_dir()


def jobs(folder: Path, size: Size) -> Iterator[Job]:
    """All trainings of a size; what is compared runs side by side."""
    for seed in range(size.seeds):
        for sft_seed in range(size.sft_seeds):
            for start in size.starts:
                for variant in size.variants:
                    yield Job(folder, start, variant, sft_seed, seed, size)


def make_world(folder: Path, questions: int = 3000, seed: int = 1) -> Store:
    """The store of a world of chains of two to four facts, built as a user would build it; kept if there."""
    from stepsearch_data.synth import WorldConfig, write_world

    file, store = folder / "world.jsonl", folder / "store"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_world(WorldConfig(questions, None, seed, sentences=1, shapes=("2hop", "3hop1", "4hop1")), file)
    command = [sys.executable, "-m", "stepsearch_data", "build", "--store", str(store), "--source", f"musique={file}"]
    built = subprocess.run([*command, "--set", "trajectories.documents=2", "--quiet"], check=False)  # noqa: S603
    if built.returncode:
        raise TrainError(f"the demo's world could not be built into {store}")
    return Store.open(store)

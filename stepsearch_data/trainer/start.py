"""What `train` does: a training from a recipe, or the demo and its curves."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.evaluation.plot.chart import draw, write
from stepsearch_data.evaluation.plot.curves import SOLVED_BY, Comparison, Curves
from stepsearch_data.evaluation.plot.runs import load_runs
from stepsearch_data.evaluation.setup import searching
from stepsearch_data.indexes import Choice, Load
from stepsearch_data.trainer.recipe import Recipe

CURVES = "curves.png"
_BASELINE = "outcome only"
Say = Callable[[str], None]


def train(recipe: Recipe, choice: Choice, load: Load, say: Say, *, resume: bool, quiet: bool) -> Path:
    """Train as a recipe says, searching with the engine that was chosen; the folder of the last checkpoint.

    Raises StepSearchError; what was reached is in the last checkpoint.
    """
    with needing_torch():
        from stepsearch_data.trainer.launch import launch
    _hear_interrupts()
    with searching(choice, load(()), load, Reporter(quiet=quiet)) as (_, retrieve):
        return launch(recipe, retrieve, resume=resume, say=say, console=Console(stderr=True, quiet=quiet))


def demonstrate(folder: Path, size: str, load: Load, workers: int, say: Say, *, seed: int) -> Comparison:
    """Run the demo, draw its curves into the folder, and compare the variants with outcome-only PPO.

    Raises StepSearchError; the same command goes on.
    """
    with needing_torch():
        from stepsearch_data.trainer.demo.experiment import SIZES, SOLVED, experiment
    _hear_interrupts()
    runs, notes = load_runs(experiment(folder, SIZES[size], load, workers, say, seed=seed))
    curves = Curves(runs, [SOLVED_BY])
    compared = curves.compare(SIZES[size].budgets, _BASELINE, SOLVED)
    write(draw(curves), folder / CURVES)
    for line in (*notes, *curves.notes, f"wrote {folder / CURVES}"):
        say(line)
    return compared


@contextmanager
def needing_torch() -> Iterator[None]:
    """Raises ConfigError where a package of the extra `train` is missing."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"training needs {error.name}", "pip install 'stepsearch-data[train]'") from error


def _hear_interrupts() -> None:
    """Have Python raise KeyboardInterrupt, upon which a training saves itself: importing polars takes SIGINT away."""
    import polars as pl  # noqa: F401 - before its handler is replaced

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)

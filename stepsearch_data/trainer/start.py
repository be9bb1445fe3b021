"""What `train` does before torch is needed: says which extra is missing, opens the engine that is searched."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.indexes import Choice, Load
from stepsearch_data.trainer.recipe import Recipe
from stepsearch_data.trainer.retrieval import open_retriever

Say = Callable[[str], None]


def train(recipe: Recipe, choice: Choice, load: Load, say: Say, *, resume: bool, quiet: bool) -> Path:
    """Train as a recipe says, searching with the engine that was chosen; return the folder of the last checkpoint.

    Raises StepSearchError; what was reached is in the last checkpoint.
    """
    with require_torch():
        from stepsearch_data.trainer.launch import launch
    restore_interrupts()
    with open_retriever(choice, load(()), load, Reporter(quiet=quiet)) as (_, retrieve):
        return launch(recipe, retrieve, resume=resume, say=say, console=Console(stderr=True, quiet=quiet))


@contextmanager
def require_torch() -> Iterator[None]:
    """Raise ConfigError where a package of the extra `train` is missing."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"training needs {error.name}", "pip install 'stepsearch-data[train]'") from error


def restore_interrupts() -> None:
    """Have Python raise KeyboardInterrupt, upon which a training saves itself.

    Importing polars takes SIGINT away.
    """
    import polars as pl  # noqa: F401 - before its handler is replaced

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""What `train` does before torch is needed: says which extra is missing, opens the engine that is searched."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.indexes import Choice, Load
from stepsearch_data.trainer.recipe import Recipe
from stepsearch_data.trainer.retrieval import open_retriever

if TYPE_CHECKING:
    from stepsearch_data.trainer.check import Finding

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


def check(recipe: Recipe, choice: Choice, load: Load, *, quiet: bool) -> Iterator[Finding]:
    """Yield what a check of a recipe finds, searching with the engine that was chosen. Raises StepSearchError.

    An engine that cannot be opened is a finding.
    """
    with require_torch():
        from stepsearch_data.trainer.check import Finding as Found
        from stepsearch_data.trainer.check import check as run
    restore_interrupts()
    with ExitStack() as stack:
        try:
            opening = open_retriever(choice, load(()), load, Reporter(quiet=quiet))
            _, retrieve = stack.enter_context(opening)
        except SearchError as error:
            yield Found("retriever", "bad", error.message, error.hint)
            return
        yield from run(recipe, retrieve)


@contextmanager
def require_torch() -> Iterator[None]:
    """Raise ConfigError where a package of the extra `train` is missing."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"training needs {error.name}", "pip install 'stepsearch-data[train]'") from error


def restore_interrupts() -> None:
    """Have Python raise KeyboardInterrupt, upon which a training saves itself.

    Importing polars takes SIGINT away. Does nothing in another thread than the main one, where Python refuses it.
    """
    import polars as pl  # noqa: F401 - before its handler is replaced

    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)

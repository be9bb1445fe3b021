"""What several commands need: the store and what lies beside it, refusals of options, and an end at any moment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from stepsearch_data.builds import run_config
from stepsearch_data.core.errors import ConfigError

if TYPE_CHECKING:
    from stepsearch_data.api import Store
    from stepsearch_data.pipeline.store import Store as Folder

OK, QUARANTINED, INTERRUPTED = 0, 3, 130
_GOES_ON = "interrupted; the same command goes on where it stopped"
_SHOW_CURSOR = b"\x1b[?25h\n"  # a progress bar hides it


def open_store(store: Path | None, config: Path | None) -> Store:
    """Open the store that is named, or that of the run file, or ./store."""
    from stepsearch_data.api import Store

    return Store(store or (run_config(config).store if config else "store"))


def beside(store: Folder, suffix: str) -> Path:
    """Return the path beside a store's folder with its name and a suffix, of a URL one in the current folder."""
    folder = Path(store.label) if store.mirror else store.root
    named = folder if folder.name.strip(".") else folder.resolve()
    return named.with_name(f"{named.name}{suffix}")


def from_environment(context: typer.Context, option: str) -> bool:
    """Tell whether the value of an option is that of a variable, so that nobody named it for this command."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "ENVIRONMENT"


def refuse(flags: Mapping[str, object], where: str) -> None:
    """Raise ConfigError for the first of these flags that was given."""
    for flag, value in flags.items():
        if not (value is None or value is False or value == []):
            raise ConfigError(f"{flag} means nothing {where}", "leave it out")


def end_at_once() -> None:
    """Have SIGINT and SIGTERM end the process, unless they are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    """End at once: a store is whole at every moment, and an exception could leave some lock held forever."""
    cache = sys.modules.get("stepsearch_data.remote.cache")
    if cache:
        cache.rescue()
    os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + f"{_GOES_ON}\n".encode())
    os._exit(INTERRUPTED)

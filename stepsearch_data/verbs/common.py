"""What several verbs need: the configuration, the store, and an end at any moment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from stepsearch_data.pipeline.config import RunConfig
    from stepsearch_data.pipeline.store import Store

OK, QUARANTINED, INTERRUPTED = 0, 3, 130
_GOES_ON = "interrupted; the same command goes on where it stopped"
_SHOW_CURSOR = b"\x1b[?25h\n"  # a progress bar hides it


def run_config(
    config: Path | None,
    settings: list[str] | None = None,
    store: Path | None = None,
    source: list[str] | None = None,
) -> RunConfig:
    """The run file below what the command line says."""
    from stepsearch_data.pipeline.config import load_config
    from stepsearch_data.stages import STAGES

    return load_config(STAGES, config, settings or (), store=store, sources=source or ())


def run_config_over(config: Path | None, settings: list[str], first: Sequence[str]) -> RunConfig:
    """The configuration with `first` below what the command line says."""
    return run_config(config, [*first, *settings])


def merged_settings(flags: dict[str, Any], settings: list[str] | None) -> list[str]:
    """Flags as settings; an explicit --set wins."""
    return [*(f"{key}={value}" for key, value in flags.items() if value is not None), *(settings or [])]


def open_store(store: Path | None, config: Path | None) -> Store:
    """The store that is named, or that of the run file."""
    from stepsearch_data.pipeline.store import Store

    return Store.open(store or run_config(config).store)


def end_at_once() -> None:
    """Have SIGINT and SIGTERM end the process, unless they are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    """End at once: a store is whole at every moment, and an exception could leave some lock held forever."""
    cache = sys.modules.get("stepsearch_data.pipeline.remote.cache")
    if cache:
        cache.rescue()
    os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + f"{_GOES_ON}\n".encode())
    os._exit(INTERRUPTED)

"""What several verbs need: the configuration, the store, and an end at any moment."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from stepsearch_data.pipeline.config import RunConfig
    from stepsearch_data.pipeline.remembered import Remembered
    from stepsearch_data.pipeline.store import Store

OK, QUARANTINED, INTERRUPTED = 0, 3, 130
_GOES_ON = "interrupted; the same command goes on where it stopped"
_SHOW_CURSOR = b"\x1b[?25h\n"  # a progress bar hides it


def run_config(
    config: Path | None,
    settings: list[str] | None = None,
    store: Path | None = None,
    source: list[str] | None = None,
    remembered: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The run file, or what a store has remembered, below what the command line says."""
    from stepsearch_data.pipeline.config import load_config
    from stepsearch_data.stages import STAGES

    return load_config(STAGES, config, settings or (), store=store, sources=source or (), remembered=remembered)


def run_config_over(
    config: Path | None, settings: list[str], first: Sequence[str], store: Path | None = None
) -> RunConfig:
    """The configuration with `first` below what the command line says, and what a `store` remembers below that."""
    return run_config(config, [*first, *settings], remembered=recalled(store).settings if store else None)


def recalled(store: Path) -> Remembered:
    """What a store remembers of how it was built."""
    from stepsearch_data.pipeline.remembered import recall
    from stepsearch_data.pipeline.store import Store
    from stepsearch_data.stages import STAGES

    return recall(Store(store), STAGES)


def merged_settings(flags: dict[str, Any], settings: list[str] | None) -> list[str]:
    """Flags as settings; an explicit --set wins."""
    told = {key: json.dumps(value) if value == "default" else value for key, value in flags.items()}
    return [*(f"{key}={value}" for key, value in told.items() if value is not None), *(settings or [])]


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
    cache = sys.modules.get("stepsearch_data.remote.cache")
    if cache:
        cache.rescue()
    os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + f"{_GOES_ON}\n".encode())
    os._exit(INTERRUPTED)

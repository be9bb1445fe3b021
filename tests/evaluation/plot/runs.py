"""Folders of runs, as the trainer writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson


def write_run(folder: Path, lines: list[dict[str, Any]], about: Mapping[str, Any] | None = None) -> Path:
    """A run with these metrics, and this run.json."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    if about is not None:
        (folder / "run.json").write_bytes(orjson.dumps(about))
    return folder


def evaluated(**values: float) -> list[dict[str, Any]]:
    """Lines of held-out exact match: `u20=.5` is .5 after 20 updates."""
    return [{"update": int(name[1:]), "eval_em": value} for name, value in values.items()]

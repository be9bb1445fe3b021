"""Commands that list the stages and tell how a store stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepsearch_data.builds import setting_text
from stepsearch_data.cli import options
from stepsearch_data.cli.common import open_store
from stepsearch_data.cli.printing import grid, print_json, say, size


def stages(as_json: options.Json = False) -> None:
    """List the stages, with what each reads, writes and can be told (`--set STAGE.KEY=VALUE`)."""
    from stepsearch_data.stages import STAGES

    listed = [
        {
            "name": stage.name,
            "doc": stage.doc,
            "reads": [read.name for read in stage.reads] or ["sources"],
            "writes": [output.name for output in stage.writes],
            "config": {name: info.description for name, info in stage.config.model_fields.items()},
        }
        for stage in STAGES
    ]
    if as_json:
        print_json(listed)
        return
    rows = [
        (stage["name"], stage["doc"], *(", ".join(stage[part]) for part in ("reads", "writes", "config")))
        for stage in listed
    ]
    grid(("stage", "what it does", "reads", "writes", "settings"), rows)


def status(store: options.Store = None, config: options.Config = None, as_json: options.Json = False) -> None:
    """Show what the store holds: rows, bytes, seconds and rejects of every stage."""
    from stepsearch_data.remembered import flat, recall
    from stepsearch_data.stages import STAGES

    opened = open_store(store, config)
    rows, told = opened.status(), recall(opened.folder, STAGES).settings
    if as_json:
        print_json({"store": opened.folder.name, "digest": opened.folder.digest(), "stages": rows, "settings": told})
        return
    print_status(rows)
    if told:
        settings = (f"{key} = {setting_text(value)}" for key, value in sorted(flat(told)))
        say("\nremembered settings: ", "; ".join(settings))


def print_status(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of a status as a table."""
    shown = [
        (
            row["stage"],
            row["state"],
            ", ".join(f"{count:,} {name}" if count is not None else name for name, count in row["rows"].items()),
            size(row["bytes"]),
            row["seconds"],
            row["rejects"],
        )
        for row in rows
    ]
    grid(("stage", "state", "rows", "size", "seconds", "rejects"), shown)

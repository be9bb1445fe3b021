"""Commands that list the stages and tell how a store stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepsearch_data.cli.common import open_store
from stepsearch_data.cli.options import ConfigOption, JsonOption, StoreOption
from stepsearch_data.cli.printing import grid, print_json, say, size
from stepsearch_data.core.terminal import visible
from stepsearch_data.remote.secrets import redact

if TYPE_CHECKING:
    from stepsearch_data.pipeline.store import Store


def stages(as_json: JsonOption = False) -> None:
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


def status(store: StoreOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what the store holds: rows, bytes, seconds and rejects of every stage."""
    from stepsearch_data.pipeline.remembered import flat, recall
    from stepsearch_data.stages import STAGES

    opened = open_store(store, config)
    rows, told = entry_rows(opened, [stage.name for stage in STAGES]), recall(opened, STAGES).settings
    if as_json:
        print_json({"store": str(opened.root), "digest": opened.digest(), "stages": rows, "settings": told})
        return
    print_status(rows)
    if told:
        settings = (f"{key} = {setting_text(value)}" for key, value in sorted(flat(told)))
        say("\nremembered settings: ", "; ".join(settings))


def setting_text(value: Any) -> str:
    """A setting's value as a run file has it, without keys."""
    from stepsearch_data.pipeline.run_file import toml

    return "default" if value is None else visible(redact(toml(value)))


def print_status(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of a status as a table."""
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


def entry_rows(store: Store, declared: Sequence[str]) -> list[dict[str, Any]]:
    """What the store holds of each stage."""
    from stepsearch_data.schemas.tables import REJECTS

    manifest = store.manifest()
    seconds = {str(r.get("folder")): r.get("seconds") for r in store.read_log("builds")}
    rows = []
    for name in declared:
        entry = manifest.stages.get(name)
        state = "not run" if entry is None else "current" if manifest.is_fresh(name) else "stale: its inputs changed"
        outputs = entry.outputs if entry else {}
        tables = {key: output for key, output in outputs.items() if key != REJECTS.name}
        rows.append(
            {
                "stage": name,
                "state": state,
                "rows": {key: output.rows for key, output in tables.items()},
                "bytes": sum(output.bytes for output in outputs.values()),
                "seconds": seconds.get(entry.folder) if entry else None,
                "rejects": outputs[REJECTS.name].rows if outputs else None,
            }
        )
    return rows

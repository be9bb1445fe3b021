"""What the verbs of `verbs.building` print."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from stepsearch_data.cli.printing import grid, make_console, print_json, say, size, store_flag
from stepsearch_data.core.terminal import visible
from stepsearch_data.pipeline.config import RunConfig
from stepsearch_data.pipeline.engine import Decision, Outcome
from stepsearch_data.pipeline.remembered import flat, recall, settings_of
from stepsearch_data.pipeline.run_file import toml
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.pipeline.store import Store
from stepsearch_data.remote.secrets import redact
from stepsearch_data.schemas.tables import REJECTS
from stepsearch_data.stages import STAGES
from stepsearch_data.stages.model import Estimate


def remembered(before: Mapping[str, Any], run: RunConfig) -> None:
    """On stderr, the settings of earlier builds that this one goes on with, and those that it replaces."""
    now = dict(flat(settings_of(run, STAGES)))
    for key, value in sorted(flat(before)):
        if now.get(key) != value:
            print(f"replaced: {key} = {_setting(value)} → {_setting(now.get(key))}", file=sys.stderr)
    kept = [f"{key} = {_setting(value)}" for key, value in sorted(flat(before)) if now.get(key) == value]
    told = [text for text in kept if text.partition(" ")[0] not in run.given]
    if told:
        print(f"remembered: {'; '.join(told)} (forget: --fresh)", file=sys.stderr)


def _setting(value: Any) -> str:
    return "default" if value is None else visible(redact(toml(value)))


def plan(decisions: Sequence[Decision], *, as_json: bool, estimates: Sequence[Estimate] = ()) -> None:
    """What a build would do, a line a stage and a line a reason, and what it would ask of a model."""
    if as_json:
        asked = {estimate.stage: asdict(estimate) for estimate in estimates}
        print_json([{**asdict(d), "runs": d.runs, "estimate": asked.get(d.stage)} for d in decisions])
        return
    rows = [(d.stage, "runs" if d.runs else "current", "\n".join(d.reasons)) for d in decisions]
    grid(("stage", "would", "because"), rows)
    if estimates:
        print()
        columns = ("stage", "model", "calls", "replayed", "prompt tokens", "reply tokens", "US dollars")
        grid(columns, [tuple(asdict(estimate).values()) for estimate in estimates], title="Estimate, without repairs")


def stages(declared: Sequence[Stage], *, as_json: bool) -> None:
    """The stages' declarations."""
    if as_json:
        print_json(
            [
                {
                    "name": s.name,
                    "doc": s.doc,
                    "reads": [read.name for read in s.reads] or ["sources"],
                    "writes": [output.name for output in s.writes],
                    "config": {name: info.description for name, info in s.config.model_fields.items()},
                }
                for s in declared
            ]
        )
        return
    rows = [
        (
            s.name,
            s.doc,
            ", ".join(read.name for read in s.reads) or "the sources",
            ", ".join(output.name for output in s.writes),
            ", ".join(s.config.model_fields),
        )
        for s in declared
    ]
    grid(("stage", "what it does", "reads", "writes", "settings"), rows)


def status(store: Store, declared: Sequence[Stage], *, as_json: bool) -> None:
    """What the store holds."""
    rows = _entry_rows(store, [stage.name for stage in declared])
    if as_json:
        told = recall(store, declared).settings
        print_json({"store": str(store.root), "digest": store.digest(), "stages": rows, "settings": told})
        return
    _status_grid(rows)
    settings = [f"{key} = {_setting(value)}" for key, value in sorted(flat(recall(store, declared).settings))]
    if settings:
        say("\nremembered settings: ", "; ".join(settings))


def _status_grid(rows: Sequence[dict[str, Any]]) -> None:
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


def _entry_rows(store: Store, declared: Sequence[str]) -> list[dict[str, Any]]:
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


def summary(store: Store, outcomes: Sequence[Outcome], *, as_json: bool, quiet: bool) -> None:
    """The end of a build: what it made, and what to try next."""
    rows = _entry_rows(store, [outcome.stage for outcome in outcomes])
    if as_json:
        ran = {outcome.stage: outcome.ran for outcome in outcomes}
        print_json(
            {
                "store": str(store.root),
                "digest": store.digest(),
                "stages": [{**row, "ran": ran[row["stage"]]} for row in rows],
            }
        )
        return
    if quiet:
        return
    _status_grid(rows)
    _calls_grid(store)
    flag = store_flag(store)
    console = make_console()
    console.print("\nTry next:", style="bold")
    for command in (
        f"stepsearch-data show{flag}",
        f"stepsearch-data audit{flag}",
        f"stepsearch-data view{flag}",
        f'stepsearch-data sql{flag} "SELECT source, hops, count(*) AS n FROM trajectories GROUP BY ALL ORDER BY ALL"',
        *([f'stepsearch-data sql{flag} "SELECT * FROM rejects"'] if any(o.rejects for o in outcomes) else []),
    ):
        console.print(Text(f"  {command}"), soft_wrap=True)


def _calls_grid(store: Store) -> None:
    """What was asked of models for this store, in all builds together."""
    sums: dict[tuple[str, str], list[float]] = {}
    for call in store.read_log("llm_calls"):
        total = sums.setdefault((call["stage"], call["model"]), [0, 0, 0, 0, 0.0])
        if call["cached"]:
            total[1] += 1
            continue
        paid = (1, 0, call["prompt_tokens"], call["completion_tokens"], call["cost"])
        total[:] = [one + other for one, other in zip(total, paid, strict=True)]
    if sums:
        print()
        columns = ("asked by", "model", "calls", "replayed", "prompt tokens", "reply tokens", "US dollars")
        grid(columns, [(*names, *numbers) for names, numbers in sums.items()])

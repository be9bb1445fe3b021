"""What the verbs of `verbs.looking` print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from stepsearch_data.cli.printing import grid, make_console, print_json, say, store_flag
from stepsearch_data.core.errors import StoreError
from stepsearch_data.pipeline.catalog import JUDGED
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.tables import QUALITY, ROUNDS, TABLES, TRAJECTORIES

_CELL = 60  # characters; longer cells are cut in tables
_AUDITED = (  # of all measures, those that fit a terminal; the JSON has the others too
    "questions",
    "hops",
    "hop_hit_at_3",
    "pass_at_1",
    "pass_at_3",
    "pass_at_5",
    "kept_per_hop",
    "complete",
    "leaks",
)
_VOTED = ("queries", "answered", "valid", "gold_at_1", "gold_at_3", "valid_alone", "invalid_alone")


def schema(*, as_json: bool) -> None:
    """Tables and columns, with their types and meanings."""
    described: dict[str, dict[str, Any]] = {
        table.name: {"doc": table.doc, "columns": [_column(field) for field in table.schema]} for table in TABLES
    }
    for name, judged in JUDGED.items():
        said = described[judged.by.name]["columns"]
        described[name]["columns"] += [{**c, "nullable": True} for c in said if c["name"] in judged.columns]
    if as_json:
        print_json(described)
        return
    for name, table in described.items():
        console = make_console()
        console.print(Text.assemble((name, "bold"), f": {table['doc']}"), soft_wrap=True)
        grid(("column", "type", "meaning"), [("  " + c["name"], c["type"], c["meaning"]) for c in table["columns"]])
        console.print()


def _column(field: Any) -> dict[str, Any]:
    meaning = (field.metadata or {}).get(b"description", b"").decode()
    return {"name": field.name, "type": _type(field.type), "nullable": field.nullable, "meaning": meaning}


def _type(data_type: Any) -> str:
    """Arrow's name of a type; structs by the names of their fields."""
    if hasattr(data_type, "value_type"):
        return f"list<{_type(data_type.value_type)}>"
    if data_type.num_fields:
        return "struct<" + ", ".join(data_type.field(at).name for at in range(data_type.num_fields)) + ">"
    return str(data_type)


def audit(measures: dict[str, Any], *, as_json: bool) -> None:
    """Quality by source, by source and hops, by engine, and trajectories by gate and split."""
    if as_json:
        print_json(measures)
        return
    for group, shown, title in (
        ("by_source", _AUDITED, "source"),
        ("by_source_and_hops", _AUDITED, "source and hops"),
        ("by_engine", _VOTED, "engine"),
        ("by_gate", None, "trajectories that fail a gate"),
        ("by_split", None, "trajectories of a split"),
    ):
        parts = measures[group]
        if group == "by_gate":
            parts = {gate: _said(counts, measures["unchecked"].get(gate)) for gate, counts in parts.items()}
        names = [name for name in next(iter(parts.values()), {}) if shown is None or name in shown]
        short = [name.replace("_at_", "@").replace("_", " ") for name in names]
        grid(
            (title, *short), [(part, *(numbers[name] for name in names)) for part, numbers in parts.items()], tight=True
        )
        print()
    waiting = sum(numbers["waiting"] for numbers in measures["by_source"].values())
    if waiting:
        say(f"{waiting:,} queries wait for engines that did not answer: stepsearch-data retry-failed", style="yellow")


def _said(counts: dict[str, Any], reason: str | None) -> dict[str, Any]:
    """Numbers of a gate by source; where it looked at nothing, why."""
    return dict.fromkeys(counts, reason) if reason else counts


def rows(store: Store, sql: str, form: str, output: Path | None, *, memory: int) -> None:
    """The rows of a query, in one of the formats; DuckDB takes so many bytes of `memory`."""
    from stepsearch_data.pipeline import catalog
    from stepsearch_data.pipeline import output as writers

    outdated = catalog.stale(store)
    if outdated:
        print(f"note: made from earlier inputs: {', '.join(outdated)}; build to renew them", file=sys.stderr)
    with catalog.query(store, sql, memory=memory) as reader:
        if form == "table" and output is None:
            _result_table(reader)
        else:
            writers.write(reader, form, output, store=store.root)


def _result_table(reader: Any) -> None:
    from stepsearch_data.pipeline.output import values

    limit = 1_000
    found: list[list[Any]] = []
    for batch in reader:
        few = batch.slice(0, limit + 1 - len(found))
        found += [[_short(value) for value in row.values()] for row in values(few)]
        if len(found) > limit:
            print(
                f"note: only the first {limit} rows; --format csv, json, jsonl or parquet writes all", file=sys.stderr
            )
            break
    grid(reader.schema.names, found[:limit])


def _short(value: Any) -> Any:
    if isinstance(value, int | float | bool | None):
        return value
    from stepsearch_data.pipeline.output import readable

    text = readable(value)
    return text if len(text) <= _CELL or "\n" in text else text[: _CELL - 1] + "…"


_REJECTED = """
SELECT hop, query, waiting, engines, valid_engines, gold_rank FROM queries WHERE question_id = $id AND NOT kept
ORDER BY hop, n
"""


def trajectory(store: Store, question_id: str | None, *, as_json: bool) -> None:
    """One trajectory, round by round."""
    from stepsearch_data.pipeline.catalog import connect

    with store.reading() as manifest, connect(store, manifest) as connection:
        if manifest.output(TRAJECTORIES.name) is None or manifest.output(ROUNDS.name) is None:
            raise StoreError("the store is not built to its end", f"stepsearch-data build{store_flag(store)}")
        chosen = "WHERE question_id = $id" if question_id else "LIMIT 1"
        wholes = _records(
            connection, f"SELECT * FROM trajectories {chosen}", {"id": question_id} if question_id else {}
        )
        if not wholes:
            of = f" of question {question_id}" if question_id else ""
            listing = f'stepsearch-data sql{store_flag(store)} "SELECT question_id FROM trajectories"'
            fault = _fault(connection, question_id)
            raise StoreError(f"there is no trajectory{of}{fault}", f"list them: {listing}")
        identity = {"id": wholes[0]["question_id"]}
        steps = _records(connection, "SELECT * FROM rounds WHERE question_id = $id ORDER BY round", identity)
        judged = manifest.output(QUALITY.name) and manifest.is_fresh(manifest.writer(QUALITY.name))
        gates = _records(connection, "SELECT * FROM quality WHERE question_id = $id", identity) if judged else []
        rejected = _records(connection, _REJECTED, identity)
    if as_json:
        print_json({**wholes[0], "rounds": steps, "quality": gates[0] if gates else None, "rejected": rejected})
        return
    _tell(wholes[0], steps, gates[0] if gates else None, rejected)


def _fault(connection: Any, question_id: str | None) -> str:
    """Why a stage set a question aside, where one did."""
    found = _records(
        connection, "SELECT stage, reason FROM rejects WHERE question_id = $id LIMIT 1", {"id": question_id}
    )
    return f": {found[0]['stage']} rejected it: {found[0]['reason']}" if question_id and found else ""


def _records(connection: Any, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return connection.sql(sql, params=parameters).to_arrow_table().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types


def _tell(
    whole: dict[str, Any],
    steps: Sequence[dict[str, Any]],
    gates: dict[str, Any] | None,
    rejected: Sequence[dict[str, Any]],
) -> None:
    say(whole["question"], style="bold")
    say(f"{whole['question_id']} · {whole['source']} · {whole['question_type']} · {whole['hops']} hops")
    failed = not whole["complete"] or (gates and not gates["passed"])
    if failed:
        say(("\nFailed  ", "bold red"), "" if whole["complete"] else "a hop has no kept query: not complete")
    for gate, reason in zip(gates["flags"], gates["reasons"], strict=True) if gates else ():
        say("  ⚑ ", (gate, "red" if failed else "yellow"), f": {reason}")
    for step in steps:
        say("\n", (f"Round {step['round']}  ", "bold"), step["sub_question"])
        say("  search  ", (step["query"], "cyan"), "  ", ("kept", "green") if step["kept"] else ("not kept", "red"))
        for other in step["alternatives"]:
            say(f"     also  {other}", style="dim")
        for document in step["documents"]:
            mark = ("★ gold ", "yellow") if document["is_gold"] else "       "
            place = f"{document['rank']}. {document['title']}  ({document['engine']} {document['score']:.2f})"
            say("  ", mark, place)
        for other in rejected if failed else ():
            if other["hop"] == step["hop"] and other["query"] != step["query"]:
                say(f"     rejected  {other['query']}  ({_verdict(other)})", style="dim")
        say("  found   " if step["kept"] else "  wanted  ", (step["sub_answer"], "green"))
    say("\n", ("Answer  ", "bold"), (whole["answer"], "bold green"))


def _verdict(query: dict[str, Any]) -> str:
    """Why the vote did not keep a query."""
    if query["waiting"]:
        return "it waits for engines that did not answer"
    gold = f"gold at rank {query['gold_rank']}" if query["gold_rank"] else "no gold found"
    return f"{query['valid_engines']} of {query['engines']} engines, {gold}"

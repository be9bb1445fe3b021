"""What the verbs print: data on stdout, as tables for people or JSON for programs."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stepsearch_data.exports.formats import Format
from stepsearch_data.pipeline.catalog import JUDGED
from stepsearch_data.pipeline.engine import Decision, Outcome
from stepsearch_data.pipeline.errors import StoreError
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.tables import REJECTS, ROUNDS, TABLES, TRAJECTORIES
from stepsearch_data.stages.model import Estimate
from stepsearch_data.terminal import visible

if TYPE_CHECKING:
    from stepsearch_data.release.hub import Hub
    from stepsearch_data.release.publish import Plan, Rehearsal
    from stepsearch_data.release.restore import Restored
    from stepsearch_data.release.verify import Report as Verified
    from stepsearch_data.score import Report
    from stepsearch_data.trainer.curves import Comparison
    from stepsearch_data.trainer.evaluate import Report as Evaluation
    from stepsearch_data.trainer.statistics import Interval

_KILO = 1000
_CELL = 60  # characters; longer cells are cut in tables
_FOLDED = 8  # characters that a column of text keeps, however narrow the terminal is
_REASONS = 5  # that are told of rows set aside
_ENDLESS = 100_000  # characters of a line where stdout is no terminal: nothing is folded
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
_COMMITTED = {"new": "add", "changed": "replace", "stale": "delete", "same": "keep"}
_VOTED = ("queries", "answered", "valid", "gold_at_1", "gold_at_3", "valid_alone", "invalid_alone")


def _json(value: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def _console() -> Console:
    """Wide enough for whole tables where stdout is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _ENDLESS, highlight=False)


def _say(*parts: str | tuple[str, str], style: str = "") -> None:
    """A line of texts, each with or without a style; they are plain text, whatever the data holds."""
    clean = [visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts]
    _console().print(Text.assemble(*clean, style=style))


def _store_flag(store: Store) -> str:
    """The option that makes another command use this store, as a shell reads it."""
    return "" if store.root == Path("store") else f" --store {shlex.quote(str(store.root))}"


def _grid(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "", *, tight: bool = False) -> None:
    """A table; numbers to the right. Cells are plain text, whatever brackets the data holds.

    Where the terminal is too narrow, text is folded but no number: then the lines are longer than it.
    """
    listed = list(rows)
    grid = Grid(title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    grid.collapse_padding = tight
    for at, column in enumerate(columns):
        numeric = any(isinstance(row[at], int | float) for row in listed)
        words = [word for text in (column, *(_cell(row[at]) for row in listed)) for word in text.split()]
        longest = max(map(len, words), default=0)
        grid.add_column(
            Text(visible(column)),
            justify="right" if numeric else "left",
            overflow="fold",
            min_width=longest if numeric else min(longest, _FOLDED),
            no_wrap=numeric and len(column) <= longest,
        )
    for row in listed:
        grid.add_row(*(Text(visible(_cell(value))) for value in row))
    console = _console()
    gap = 1 if tight else 2
    console.width = max(console.width, sum((column.min_width or 0) + gap for column in grid.columns))
    console.print(grid, crop=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def plan(decisions: Sequence[Decision], *, as_json: bool, estimates: Sequence[Estimate] = ()) -> None:
    """What a build would do, a line a stage and a line a reason, and what it would ask of a model."""
    if as_json:
        asked = {estimate.stage: asdict(estimate) for estimate in estimates}
        _json([{**asdict(d), "runs": d.runs, "estimate": asked.get(d.stage)} for d in decisions])
        return
    rows = [(d.stage, "runs" if d.runs else "current", "\n".join(d.reasons)) for d in decisions]
    _grid(("stage", "would", "because"), rows)
    if estimates:
        print()
        columns = ("stage", "model", "calls", "replayed", "prompt tokens", "reply tokens", "US dollars")
        _grid(columns, [tuple(asdict(estimate).values()) for estimate in estimates], title="Estimate, without repairs")


def stages(declared: Sequence[Stage], *, as_json: bool) -> None:
    """The stages' declarations."""
    if as_json:
        _json(
            [
                {
                    "name": s.name,
                    "doc": s.doc,
                    "reads": ["sources"] if s.reads_sources else list(s.reads),
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
            ", ".join(s.reads) or "the sources",
            ", ".join(output.name for output in s.writes),
            ", ".join(s.config.model_fields),
        )
        for s in declared
    ]
    _grid(("stage", "what it does", "reads", "writes", "settings"), rows)


def formats(known: Sequence[Format]) -> None:
    """What `export` can write."""
    _grid(("format", "files", "for"), [(form.name, f".{form.suffix}", form.doc) for form in known])


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


def status(store: Store, declared: Sequence[Stage], *, as_json: bool) -> None:
    """What the store holds."""
    rows = _entry_rows(store, [stage.name for stage in declared])
    if as_json:
        _json({"store": str(store.root), "digest": store.digest(), "stages": rows})
        return
    _status_grid(rows)


def _status_grid(rows: Sequence[dict[str, Any]]) -> None:
    shown = [
        (
            row["stage"],
            row["state"],
            ", ".join(f"{count:,} {name}" if count is not None else name for name, count in row["rows"].items()),
            _size(row["bytes"]),
            row["seconds"],
            row["rejects"],
        )
        for row in rows
    ]
    _grid(("stage", "state", "rows", "size", "seconds", "rejects"), shown)


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
        _grid(columns, [(*names, *numbers) for names, numbers in sums.items()])


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < _KILO:
            return f"{count:.0f} {unit}"
        count /= _KILO
    return f"{count:.1f} GB"


def summary(store: Store, outcomes: Sequence[Outcome], *, as_json: bool, quiet: bool) -> None:
    """The end of a build: what it made, and what to try next."""
    rows = _entry_rows(store, [outcome.stage for outcome in outcomes])
    if as_json:
        ran = {outcome.stage: outcome.ran for outcome in outcomes}
        _json(
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
    flag = _store_flag(store)
    console = _console()
    console.print("\nTry next:", style="bold")
    for command in (
        f"stepsearch-data show{flag}",
        f"stepsearch-data audit{flag}",
        f"stepsearch-data view{flag}",
        f'stepsearch-data sql{flag} "SELECT source, hops, count(*) AS n FROM trajectories GROUP BY ALL ORDER BY ALL"',
        *([f'stepsearch-data sql{flag} "SELECT * FROM rejects"'] if any(o.rejects for o in outcomes) else []),
    ):
        console.print(Text(f"  {command}"), soft_wrap=True)


def schema(*, as_json: bool) -> None:
    """Tables and columns, with their types and meanings."""
    described: dict[str, dict[str, Any]] = {
        table.name: {"doc": table.doc, "columns": [_column(field) for field in table.schema]} for table in TABLES
    }
    for name, judged in JUDGED.items():
        said = described[judged.by.name]["columns"]
        described[name]["columns"] += [{**c, "nullable": True} for c in said if c["name"] in judged.columns]
    if as_json:
        _json(described)
        return
    for name, table in described.items():
        console = _console()
        console.print(Text.assemble((name, "bold"), f": {table['doc']}"), soft_wrap=True)
        _grid(("column", "type", "meaning"), [("  " + c["name"], c["type"], c["meaning"]) for c in table["columns"]])
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


def verified(report: Verified, *, as_json: bool) -> None:
    """How every file stands: all of them as JSON, for people those that are not as recorded."""
    if as_json:
        _json({**asdict(report), "ok": not report.faults})
        return
    counts = Counter(str(finding.state) for finding in report.findings)
    for fault in report.faults:
        _say((f"{fault.state:<11}", "bold red"), fault.path)
    _say(f"{report.kind} {report.where}: ", ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())))
    if counts["absent"]:
        _say("absent: an index, which a build makes anew", style="dim")
    _say(f"sha256 {report.digest}", style="dim")


def changes(plan: Plan, repo: str) -> None:
    """What a commit would do to the repository, by folder."""
    groups: dict[tuple[str, str], list[int]] = {}
    for change in plan.changes:
        folder = "/".join(change.path.split("/")[:-1][:2]) or change.path
        groups.setdefault((change.state, folder), []).append(change.bytes)
    order = {"new": 0, "changed": 1, "stale": 2, "same": 3}
    listed = sorted(groups.items(), key=lambda group: order[group[0][0]])
    rows = [(_COMMITTED[state], folder, len(sizes), _size(sum(sizes))) for (state, folder), sizes in listed]
    _grid(("would", f"in {repo}", "files", "size"), rows)
    if plan.head is None:
        _say(f"{repo} is made first")
    if plan.nothing:
        _say("all of it is there already")


def rehearsed(found: Rehearsal, repo: str) -> None:
    """What publishing would do, and what would end it."""
    if found.plan:
        changes(found.plan, repo)
    if found.fault:
        what = "" if found.plan else "nothing was compared, and "
        print(f"note: {what}publishing would fail now: {visible(found.fault.message)}", file=sys.stderr)
        print(f"hint: {visible(found.fault.hint)}", file=sys.stderr)


def published(plan: Plan, hub: Hub) -> None:
    """Where the release is, and how it is loaded."""
    version = plan.release.record.version
    revision = f', revision="{version}"' if version else ""
    print(f"{hub.url}/tree/{version or 'main'}")
    print(f'load_dataset("{hub.repo}", "{next(iter(plan.release.record.configs))}"{revision})')


def pulled(restored: Restored) -> None:
    """A store that came from the Hub."""
    _say(f"{restored.store.root}  sha256 {restored.digest}", "" if restored.fresh else "  (it was there already)")
    _say(f"try: stepsearch-data audit{_store_flag(restored.store)}")


def audit(measures: dict[str, Any], *, as_json: bool) -> None:
    """Quality by source, by source and hops, by engine, and trajectories by gate and split."""
    if as_json:
        _json(measures)
        return
    for group, shown, title in (
        ("by_source", _AUDITED, "source"),
        ("by_source_and_hops", _AUDITED, "source and hops"),
        ("by_engine", _VOTED, "engine"),
        ("by_gate", None, "trajectories that fail a gate"),
        ("by_split", None, "trajectories of a split"),
    ):
        parts = measures[group]
        names = [name for name in next(iter(parts.values()), {}) if shown is None or name in shown]
        short = [name.replace("_at_", "@").replace("_", " ") for name in names]
        _grid(
            (title, *short), [(part, *(numbers[name] for name in names)) for part, numbers in parts.items()], tight=True
        )
        print()
    waiting = sum(numbers["waiting"] for numbers in measures["by_source"].values())
    if waiting:
        _say(f"{waiting:,} queries wait for engines that did not answer: stepsearch-data retry-failed", style="yellow")


def rows(store: Store, sql: str, form: str, output: Path | None, timeout: float) -> None:
    """The rows of a query, in one of the formats."""
    from stepsearch_data.pipeline import catalog
    from stepsearch_data.pipeline import output as writers

    outdated = catalog.stale(store)
    if outdated:
        print(f"note: made from earlier inputs: {', '.join(outdated)}; build to renew them", file=sys.stderr)
    with catalog.query(store, sql, timeout) as reader:
        if form == "table" and output is None:
            _result_table(reader)
        else:
            writers.write(reader, form, output, store=store.root)


def _result_table(reader: Any) -> None:
    from stepsearch_data.pipeline.output import values

    limit = 1_000
    found: list[list[Any]] = []
    for batch in reader:
        found += [list(row.values()) for row in values(batch.slice(0, limit + 1 - len(found)))]
        if len(found) > limit:
            print(
                f"note: only the first {limit} rows; --format csv, json, jsonl or parquet writes all", file=sys.stderr
            )
            break
    _grid(reader.schema.names, [[_short(value) for value in row] for row in found[:limit]])


def _short(value: Any) -> Any:
    if isinstance(value, int | float | bool | None):
        return value
    from stepsearch_data.pipeline.output import readable

    text = readable(value)
    return text if len(text) <= _CELL or "\n" in text else text[: _CELL - 1] + "…"


def trajectory(store: Store, question_id: str | None, *, as_json: bool) -> None:
    """One trajectory, round by round."""
    from stepsearch_data.pipeline.catalog import connect

    with store.reading() as manifest, connect(store, manifest) as connection:
        if manifest.output(TRAJECTORIES.name) is None or manifest.output(ROUNDS.name) is None:
            raise StoreError("the store is not built to its end", f"stepsearch-data build{_store_flag(store)}")
        chosen = "WHERE question_id = $id" if question_id else "LIMIT 1"
        wholes = _records(
            connection, f"SELECT * FROM trajectories {chosen}", {"id": question_id} if question_id else {}
        )
        if not wholes:
            of = f" of question {question_id}" if question_id else ""
            listing = f'stepsearch-data sql{_store_flag(store)} "SELECT question_id FROM trajectories"'
            raise StoreError(f"there is no trajectory{of}", f"list them: {listing}")
        identity = {"id": wholes[0]["question_id"]}
        steps = _records(connection, "SELECT * FROM rounds WHERE question_id = $id ORDER BY round", identity)
    if as_json:
        _json({**wholes[0], "rounds": steps})
        return
    _tell(wholes[0], steps)


def _records(connection: Any, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return connection.sql(sql, params=parameters).to_arrow_table().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types


def _tell(whole: dict[str, Any], steps: Sequence[dict[str, Any]]) -> None:
    _say(whole["question"], style="bold")
    _say(f"{whole['question_id']} · {whole['source']} · {whole['question_type']} · {whole['hops']} hops")
    for step in steps:
        _say("\n", (f"Round {step['round']}  ", "bold"), step["sub_question"])
        _say("  search  ", (step["query"], "cyan"), "  ", ("kept", "green") if step["kept"] else ("not kept", "red"))
        for other in step["alternatives"]:
            _say(f"     also  {other}", style="dim")
        for document in step["documents"]:
            mark = ("★ gold ", "yellow") if document["is_gold"] else "       "
            place = f"{document['rank']}. {document['title']}  ({document['engine']} {document['score']:.2f})"
            _say("  ", mark, place)
        _say("  found   ", (step["sub_answer"], "green"))
    _say("\n", ("Answer  ", "bold"), (whole["answer"], "bold green"))


def scores(report: Report, output: Path, *, kind: str) -> None:
    """Means of what was scored."""
    means = report.means()
    shown = (
        ("musique_em", "musique_f1", "hotpotqa_em", "hotpotqa_f1")
        if kind == "answers"
        else (
            *("score", "answer_em", "answer_correct", "search_key_score", "format_ok", "rounds"),
            *("information_gain_per_round", "redundancy_penalty_per_round"),
        )
    )
    _grid(("scored", *(name.replace("_", " ") for name in shown)), [(report.scored, *(means.get(n) for n in shown))])
    _say(f"wrote {output}")


def curves(compared: Comparison, *, as_json: bool) -> None:
    """Values of variants at budgets, and their paired differences."""
    if as_json:
        _json(asdict(compared))
        return
    ends = ("mean", "95 % low", "high")
    _grid(
        *_filled(
            ("metric", "start", compared.axis, "variant", "runs", *ends, "solved"),
            [(v.metric, v.start, round(v.at), v.variant, *astuple(v.value), _share(v.solved)) for v in compared.values],
        )
    )
    if compared.differences:
        print()
        pairs = [(d, f"{d.variant} − {d.against}") for d in compared.differences]
        _grid(
            *_filled(
                ("metric", "start", compared.axis, "difference", "pairs", *ends),
                [(d.metric, d.start, round(d.at), named, *astuple(d.value)) for d, named in pairs],
            )
        )


def _filled(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    """The columns in which something stands."""
    kept = [at for at in range(len(columns)) if any(row[at] not in {None, ""} for row in rows)]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]


def _share(found: Interval | None) -> str:
    return f"{round(found.mean * found.n)} of {found.n} ({found.low:.2f} to {found.high:.2f})" if found else ""


def set_aside(report: Report, path: Path) -> None:
    """On stderr: how many rows could not be scored, and why the most of them."""
    print(visible(f"{report.rejected:,} rows could not be scored, all in {path}:"), file=sys.stderr)
    for reason, times in report.reasons.most_common(_REASONS):
        first = f"row {report.first[reason]:,}"
        print(visible(f"  {first}{f' and {times - 1:,} more' if times > 1 else ''}: {reason}"), file=sys.stderr)


def evaluation(report: Evaluation, output: Path | None, *, as_json: bool) -> None:
    """What a policy's rollouts measure; on stderr what is wrong with them."""
    if as_json:
        _json({"settings": report.settings, **report.measures, "usage": report.usage})
    else:
        shown = (
            ("recall", "support_recall"),
            ("searches", "searches"),
            ("redundant", "redundant_searches"),
            ("repeated", "repeated_queries"),
            ("format errors", "format_errors"),
            ("own tokens", "own_tokens"),
        )
        rows = [
            (
                name,
                part["questions"],
                *_with_interval(part, "em"),
                *_with_interval(part, "f1"),
                *(part[key] for _, key in shown),
                part["ended"]["answer"],
            )
            for level in report.measures.values()
            for name, part in level.items()
        ]
        columns = ("", "questions", "EM", "95 %", "F1", "95 %", *(title for title, _ in shown), "answered")
        _grid(columns, rows, tight=True)
        if output:
            _say(f"wrote {output}")
    _tell_faults(report)


def _with_interval(part: dict[str, Any], name: str) -> tuple[float, str]:
    low, high = part[f"{name}_interval"]
    return part[name], f"{low:.3f}–{high:.3f}"


def _tell_faults(report: Evaluation) -> None:
    """On stderr: rows that could not be asked, rollouts that were refused, and what is wrong as a whole."""
    refused = [f"{times:,} × {reason}" for reason, times in report.refused.most_common(_REASONS)]
    for times, what, reasons in (
        (len(report.rejects), "rows cannot be asked", report.rejects[:_REASONS]),
        (report.refused.total(), "rollouts were refused; the same command tries them again", refused),
    ):
        if times:
            print(visible(f"{times:,} {what}:"), *(visible(f"  {why}") for why in reasons), sep="\n", file=sys.stderr)
    for note in report.notes():
        print(visible(f"note: {note}"), file=sys.stderr)

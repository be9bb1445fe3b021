"""What the verbs of `verbs.training` print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsearch_data.cli.printing import grid, print_json, say
from stepsearch_data.core.terminal import visible

if TYPE_CHECKING:
    from stepsearch_data.evaluation.evaluate import Report as Evaluation
    from stepsearch_data.evaluation.plot.curves import Comparison
    from stepsearch_data.evaluation.plot.statistics import Interval
    from stepsearch_data.scoring.files import Report

_REASONS = 5  # that are told of rows set aside


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
    grid(("scored", *(name.replace("_", " ") for name in shown)), [(report.scored, *(means.get(n) for n in shown))])
    say(f"wrote {output}")


def set_aside(report: Report, path: Path) -> None:
    """On stderr: how many rows could not be scored, and why the most of them."""
    print(visible(f"{report.rejected:,} rows could not be scored, all in {path}:"), file=sys.stderr)
    for reason, times in report.reasons.most_common(_REASONS):
        first = f"row {report.first[reason]:,}"
        print(visible(f"  {first}{f' and {times - 1:,} more' if times > 1 else ''}: {reason}"), file=sys.stderr)


def curves(compared: Comparison, *, as_json: bool) -> None:
    """Values of variants at budgets, and their paired differences."""
    if as_json:
        print_json(asdict(compared))
        return
    ends = ("mean", "95 % low", "high")
    grid(
        *_filled(
            ("metric", "start", compared.axis, "variant", "runs", *ends, "solved"),
            [(v.metric, v.start, round(v.at), v.variant, *astuple(v.value), _share(v.solved)) for v in compared.values],
        )
    )
    if compared.differences:
        print()
        pairs = [(d, f"{d.variant} − {d.against}") for d in compared.differences]
        grid(
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


def evaluation(report: Evaluation, output: Path | None, *, as_json: bool) -> None:
    """What a policy's rollouts measure; on stderr what is wrong with them."""
    if as_json:
        print_json({"settings": report.settings, **report.measures, "usage": report.usage})
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
        grid(columns, rows, tight=True)
        if output:
            say(f"wrote {output}")
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

"""`show`: one trajectory, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from stepsearch_data.cli import options
from stepsearch_data.cli.common import open_store
from stepsearch_data.cli.printing import print_json, say

if TYPE_CHECKING:
    from stepsearch_data.schemas.rows import Check


def show(
    question_id: Annotated[
        str | None, typer.Argument(help="Question to show; the first trajectory by default.")
    ] = None,
    store: options.Store = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Print one trajectory for a human: every round with queries and documents, gold ones marked, and checks."""
    opened = open_store(store, config)
    trajectory = opened.trajectory(question_id)
    checks = opened.checks(trajectory.question_id)
    if as_json:
        print_json({**trajectory.model_dump(), "checks": [check.model_dump() for check in checks]})
        return
    for line in (*trajectory.lines(), *_lines(checks)):
        say(*line)


def _lines(checks: Sequence[Check]) -> Iterator[list[tuple[str, str]]]:
    """Yield what speaks against a question, and every reading by a model."""
    told = [check for check in checks if check.outcome == "failed" or check.answer]
    if told:
        yield [("\nChecks  ", "bold"), (", ".join(dict.fromkeys(c.judge for c in checks if c.judge)), "dim")]
    for check in told:
        part = f" without {check.part}" if check.part else ""
        said = f" → {check.answer}" if check.answer else ""
        style = "yellow" if check.outcome == "failed" else "green"
        yield [("  ", ""), (check.check, style), (f"{part}{said}  ", ""), (check.reason, "dim")]
        yield from ([(f"     “{quote}”", "dim")] for quote in check.quotes)

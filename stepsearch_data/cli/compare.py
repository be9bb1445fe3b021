"""The command that compares two stores, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stepsearch_data.builds import setting_text
from stepsearch_data.cli import options
from stepsearch_data.cli.common import open_store
from stepsearch_data.cli.look import tell_report
from stepsearch_data.cli.printing import grid, print_json, say

_MOST = 20  # changed trajectories that are listed; gained and lost ones are all listed


def compare(
    a: Annotated[Path, typer.Argument(help="A store.")],
    b: Annotated[Path, typer.Argument(help="Another store.")],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a web page too: the report of B, with what has changed."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compare two stores: settings that differ, counts, gates, and every trajectory that was gained, lost or changed.

    A trajectory counts when it is fit for training: complete, and passed by the quality gates.

    Example: stepsearch-data compare store store-k5 --html changes.html
    """
    found = open_store(a, None).compare(b)
    if html:
        tell_report(open_store(b, None).report(html, compare=a))
    if as_json:
        print_json(found)
    else:
        print_compared(found)


def print_compared(found: dict[str, Any]) -> None:
    """Print what differs between two stores, A and B."""
    for name, store in zip("AB", found["stores"], strict=True):
        say((f"{name}  ", "bold"), store)
    for key, (ours, theirs) in found["settings"].items():
        say(f"{key}: {setting_text(ours)} → {setting_text(theirs)}")
    rows = [(name.replace("_", " "), ours, theirs, theirs - ours) for name, (ours, theirs) in found["counts"].items()]
    ours, theirs = found["kept_share"]
    rows.insert(1 + list(found["counts"]).index("queries_kept"), ("kept share", ours, theirs, theirs - ours))
    rows += [(f"gate {gate}", ours, theirs, theirs - ours) for gate, (ours, theirs) in found["gates"].items()]
    grid(("", "A", "B", "B - A"), rows)
    for what in ("gained", "lost"):
        say(
            (f"{what}: {len(found[what]):,}", "bold"),
            " trajectories that only " + ("B" if what == "gained" else "A") + " has",
        )
        for one in found[what]:
            say(f"  {one['question_id']}", (f"  {one['why']}", "dim"))
    changed = found["changed"]
    say((f"changed: {len(changed):,}", "bold"), " trajectories that both have")
    for one in changed[:_MOST]:
        say(f"  {one['question_id']}", (f"  other {', '.join(one['differs'])}".replace("_", " "), "dim"))
    if len(changed) > _MOST:
        say(f"  and {len(changed) - _MOST:,} more: --json lists them", style="dim")

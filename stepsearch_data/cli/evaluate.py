"""`eval`: a policy answers questions with a search engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepsearch_data.cli import options
from stepsearch_data.cli.common import OK, QUARANTINED, end_at_once
from stepsearch_data.cli.playing import AskNothing, Playing, print_rehearsal, tell_faults, with_playing
from stepsearch_data.cli.printing import grid, print_json, say
from stepsearch_data.core.progress import Reporter
from stepsearch_data.sources import DATASETS

if TYPE_CHECKING:
    from stepsearch_data.evaluation.evaluate import Report


@with_playing
def evaluate(
    *,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            "--questions",
            metavar="KIND=FILE",
            help=f"Questions to ask, repeatable: a file of {', '.join(DATASETS.ours)}; qa is any of question and "
            "golden_answers. Default: those of the store.",
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the store to ask.")] = "validation",
    playing: Playing,
    output: Annotated[
        Path | None,
        options.output(metavar="DIR", help="Folder for rollouts and metrics. A stopped run goes on."),
    ] = None,
    dry_run: AskNothing = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Let a policy answer questions with a search engine: exact match, F1, recall of gold paragraphs, searches.

    To have a store keep what it does, as data: stepsearch-data rollouts.

    Example: stepsearch-data eval --llm gpt-4o-mini --split train --limit 50 --output evals/gpt-4o-mini
    """
    if output:
        end_at_once()
    from stepsearch_data.evaluation.evaluate import evaluate as run
    from stepsearch_data.evaluation.evaluate import rehearse

    setup = replace(playing.options(), questions=tuple(questions or ()), split=split, output=output)
    if dry_run:
        print_rehearsal(rehearse(setup, playing.load), as_json=as_json)
        return
    report = run(setup, playing.load, Reporter(quiet=quiet))
    _print_evaluation(report, output, as_json=as_json)
    raise typer.Exit(QUARANTINED if report.rejects or report.refused else OK)


def _print_evaluation(report: Report, output: Path | None, *, as_json: bool) -> None:
    """Print what a policy's rollouts measure; on stderr what is wrong with them."""
    if as_json:
        print_json({"settings": report.settings, **report.measures, "usage": report.usage})
    else:
        print_measures(report.measures)
        if output:
            say(f"wrote {output}")
    tell_faults(report)


def print_measures(measures: dict[str, Any]) -> None:
    """Print how good the answers are, and in another table what was done for them: each fits a common terminal."""
    done = {
        "searches": "searches",
        "redundant": "redundant_searches",
        "repeated": "repeated_queries",
        "format errors": "format_errors",
        "own tokens": "own_tokens",
    }
    parts = [(name, part) for level in measures.values() for name, part in level.items()]
    done |= {name: name for name in ("opens", "finds") if name in parts[0][1]}
    answers = [
        (name, part["questions"], *_with_interval(part, "em"), *_with_interval(part, "f1"), part["support_recall"])
        for name, part in parts
    ]
    grid(("answers", "questions", "EM", "95 %", "F1", "95 %", "recall"), answers, tight=True)
    print()
    acts = [(name, *(part[key] for key in done.values()), part["ended"]["answer"]) for name, part in parts]
    grid(("rollouts", *done, "answered"), acts, tight=True)


def _with_interval(part: dict[str, Any], name: str) -> tuple[float, str]:
    low, high = part[f"{name}_interval"]
    return part[name], f"{low:.3f}–{high:.3f}"

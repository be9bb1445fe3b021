"""`score`: rewards of any model's rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stepsearch_data.cli import options
from stepsearch_data.cli.common import QUARANTINED, beside, from_environment, open_store
from stepsearch_data.cli.printing import REASONS, grid, say, tell
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.progress import Reporter

if TYPE_CHECKING:
    from stepsearch_data.scoring.files import Report


def score(
    context: typer.Context,
    rollouts: Annotated[
        Path | None,
        typer.Argument(help="Rollouts to score: JSON Lines, one JSON array (.gz, .bz2, .zst too) or Parquet."),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option("--answers", help="Score answers instead: a file of `prediction` and `answers`.")
    ] = None,
    store: options.Store = None,
    preset: Annotated[
        Literal["paper", "reference", "gain+key", "outcome"],
        typer.Option(
            "--preset",
            help="The paper's equations, the reference code's, the paper's without penalty, or the answer alone.",
        ),
    ] = "paper",
    switches: options.Switches = None,
    output: Annotated[
        Path | None,
        options.output(
            help="Parquet file to write (default ROLLOUTS.scores.parquet, of a store STORE.scores.parquet, of answers "
            "FILE.answer-scores.parquet).",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=1_024, help="Processes (default: all cores).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines on stdout, write no Parquet.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Score any model's rollouts with StepSearch's rewards: every component, for every round.

    Reads `response, target, search_keys, support_docs`, and the names that verl and Search-R1 have for them.
    Without a file, --store names a store, whose kept rollouts are scored against its questions.
    """
    from stepsearch_data.scoring.files import default_output, rejects_of, score_file, score_store
    from stepsearch_data.scoring.scorer import Scorer, configure

    file = rollouts or answers
    if file and from_environment(context, "store"):
        store = None
    if [rollouts, answers, store].count(None) != 2:  # noqa: PLR2004 - all but one
        raise ConfigError("expected one: a file ROLLOUTS, --answers FILE, or --store STORE, which keeps rollouts")
    if answers and switches:
        raise ConfigError("--set is for rollouts: the official answer metrics have no switches")
    if as_json and output:
        raise ConfigError("--json prints, --output writes Parquet", "leave one out")
    scorer = Scorer("answers" if answers else "rollouts", configure(preset, switches or ()))
    reporter = Reporter(quiet=quiet)
    if file:
        target = output or default_output(file, scorer.kind)
        report = score_file(file, scorer, None if as_json else target, workers=workers, reporter=reporter)
    else:
        folder = open_store(store, None).folder
        target = output or beside(folder, ".scores.parquet")
        report = score_store(
            folder, scorer, None if as_json else target, rejects_of(target), workers=workers, reporter=reporter
        )
    if not (as_json or quiet):
        _print_scores(report, target, kind=scorer.kind)
    if report.rejected:
        _print_rejects(report, rejects_of(target))
        raise typer.Exit(QUARANTINED)


def _print_scores(report: Report, output: Path, *, kind: str) -> None:
    """Print means of what was scored."""
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


def _print_rejects(report: Report, path: Path) -> None:
    """Print on stderr how many rows could not be scored, and the most frequent reasons."""
    tell(f"{report.rejected:,} rows could not be scored, all in {path}:")
    for reason, times in report.reasons.most_common(REASONS):
        more = f" and {times - 1:,} more" if times > 1 else ""
        tell(f"  row {report.first[reason]:,}{more}: {reason}")

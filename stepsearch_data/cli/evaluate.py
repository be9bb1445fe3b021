"""`eval`: a policy answers questions with a search engine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepsearch_data.builds import engine_settings, merged_settings, run_config_over
from stepsearch_data.cli import options
from stepsearch_data.cli.common import OK, QUARANTINED, end_at_once
from stepsearch_data.cli.printing import REASONS, grid, print_json, say, tell
from stepsearch_data.core.progress import Reporter
from stepsearch_data.sources import DATASETS

if TYPE_CHECKING:
    from stepsearch_data.evaluation.evaluate import Report
    from stepsearch_data.indexes import Load


def evaluate(
    checkpoint: options.Checkpoint = None,
    best: options.Best = False,
    llm: options.Policy = None,
    base_url: options.BaseUrl = None,
    raw: options.Raw = False,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            "--questions",
            metavar="KIND=FILE",
            help=f"Questions to ask, repeatable: a file of {', '.join(DATASETS.ours)}; qa is any of question and "
            "golden_answers. Default: those of the store.",
        ),
    ] = None,
    store: options.Store = None,
    split: Annotated[str, typer.Option("--split", help="Split of the store to ask.")] = "validation",
    limit: options.EachLimit = None,
    engine: options.OneEngine = None,
    index: options.Index = None,
    corpus: options.Corpus = None,
    template: options.Wording = None,
    tools: options.Tools = None,
    page_length: options.PageLength = None,
    max_reads: options.MaxReads = None,
    calls_per_turn: options.CallsPerTurn = None,
    turns: options.Turns = None,
    k: options.Shown = None,
    max_tokens: options.TurnTokens = None,
    length: options.Length = None,
    samples: options.Samples = 1,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
    batch: options.Batch = None,
    max_concurrency: options.MaxConcurrency = None,
    max_cost: options.OwnCost = None,
    output: Annotated[
        Path | None,
        options.output(metavar="DIR", help="Folder for rollouts and metrics. A stopped run goes on."),
    ] = None,
    dry_run: options.AskNothing = False,
    config: options.Config = None,
    settings: options.Settings = None,
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
    from stepsearch_data.evaluation.setup import Options
    from stepsearch_data.indexes import Choice

    setup = Options(
        checkpoint=checkpoint,
        best=best,
        llm=llm,
        raw=raw,
        questions=tuple(questions or ()),
        split=split,
        choice=Choice(corpus, store, index),
        template=template,
        lengths=lengths_of(turns, k, max_tokens, length),
        tools=tools_of(tools),
        reading=reading_of(page_length, max_reads, calls_per_turn),
        limit=limit,
        batch=batch,
        samples=samples,
        temperature=temperature,
        seed=seed,
        output=output,
    )
    load = loader(config, engine, base_url, max_concurrency, max_cost, settings)
    if dry_run:
        print_rehearsal(rehearse(setup, load), as_json=as_json)
        return
    report = run(setup, load, Reporter(quiet=quiet))
    _print_evaluation(report, output, as_json=as_json)
    raise typer.Exit(QUARANTINED if report.rejects or report.refused else OK)


def lengths_of(turns: int | None, k: int | None, max_tokens: int | None, length: int | None) -> dict[str, int]:
    """Return the lengths that are given, as fields of `Limits`."""
    lengths = {"max_turns": turns, "topk": k, "max_new_tokens": max_tokens, "max_length": length}
    return {name: value for name, value in lengths.items() if value is not None}


def tools_of(named: str | None) -> tuple[str, ...]:
    """Return the names that are given, between commas."""
    return tuple(name.strip() for name in (named or "").split(",") if name.strip())


def reading_of(page_length: int | None, max_reads: int | None, calls_per_turn: int | None) -> dict[str, int]:
    """Return what is given of how documents are opened, as fields of `EnvironmentConfig`."""
    reading = {"page_length": page_length, "max_reads": max_reads, "calls_per_turn": calls_per_turn}
    return {name: value for name, value in reading.items() if value is not None}


def loader(
    config: Path | None,
    engine: list[str] | None,
    base_url: str | None,
    max_concurrency: int | None,
    max_cost: float | None,
    settings: list[str] | None,
) -> Load:
    """Return what reads the configuration of who plays: its server, its budget and the engine that it searches."""
    flags = {"llm.base_url": base_url, "llm.max_concurrency": max_concurrency, "llm.max_cost": max_cost}
    return partial(run_config_over, config, [*engine_settings(engine), *merged_settings(flags, settings)])


def print_rehearsal(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what a policy would be asked for."""
    if as_json:
        print_json(found)
        return
    cost = "" if found["cost_at_most"] is None else f", ${found['cost_at_most']:,.2f}"
    say(f"{found['questions']:,} questions, {found['rollouts']:,} rollouts, of which {found['there']:,} are there")
    say(f"at most {found['turns_at_most']:,} turns, {found['completion_tokens_at_most']:,} tokens written{cost}")


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


def tell_faults(report: Report) -> None:
    """Tell on stderr which rows could not be asked or were refused, and what is wrong as a whole."""
    refused = [f"{times:,} × {reason}" for reason, times in report.refused.most_common(REASONS)]
    for times, what, reasons in (
        (len(report.rejects), "rows cannot be asked", report.rejects[:REASONS]),
        (report.refused.total(), "rollouts were refused; the same command tries them again", refused),
    ):
        if times:
            tell(f"{times:,} {what}:", *(f"  {why}" for why in reasons))
    tell(*(f"note: {note}" for note in report.notes()))

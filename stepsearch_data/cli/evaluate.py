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

_of_rollouts = partial(typer.Option, rich_help_panel="Rollouts")


def evaluate(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="A run of `train`, one of its checkpoints, or a language model of `transformers`."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Of a run, the checkpoint with the highest held-out exact match.")
    ] = False,
    llm: Annotated[
        str | None, options.of_model("--llm", metavar="MODEL", help="Model of an OpenAI-compatible server, instead.")
    ] = None,
    base_url: Annotated[str | None, options.of_model("--base-url", help="The server (llm.base_url).")] = None,
    raw: Annotated[
        bool, options.of_model("--raw", help="Continue one text (/completions), as trained policies do, not a chat.")
    ] = False,
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
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            max=1_000_000_000,
            help="At most N questions per source: drawn from a store, the first of a file.",
        ),
    ] = None,
    engine: options.OneEngine = None,
    index: options.Index = None,
    corpus: options.Corpus = None,
    template: Annotated[
        str | None,
        _of_rollouts(
            "--template",
            "-t",
            metavar="NAME|FILE",
            help="How prompts are worded: musique, paper or a file of yours (default: as trained, or musique).",
        ),
    ] = None,
    turns: Annotated[
        int | None, _of_rollouts("--turns", min=0, max=1_000, help="Turns that may search (default: as trained, or 5).")
    ] = None,
    k: Annotated[
        int | None, _of_rollouts("-k", min=1, max=100, help="Documents per search (default: as trained, or 3).")
    ] = None,
    max_tokens: Annotated[
        int | None,
        _of_rollouts("--max-tokens", min=1, max=1_000_000, help="Tokens of a turn (default: as trained, or 500)."),
    ] = None,
    length: Annotated[
        int | None,
        _of_rollouts(
            "--length",
            min=16,
            max=100_000_000,
            help="Tokens of a rollout and its prompt (default: as trained, or 4096).",
        ),
    ] = None,
    samples: Annotated[
        int,
        _of_rollouts("--samples", min=1, max=10_000, help="Rollouts of each question. A higher number adds to DIR."),
    ] = 1,
    temperature: Annotated[
        float,
        _of_rollouts("--temperature", min=0, max=100, callback=options.finite, help="0 takes the likeliest token."),
    ] = 0.0,
    seed: Annotated[int, _of_rollouts("--seed", min=0, max=2**63 - 1, help="Seed of sampling.")] = 0,
    batch: Annotated[
        int | None,
        _of_rollouts(
            "--batch", min=1, max=1_000_000, help="Rollouts at once (default 64; of a server 4 × concurrency)."
        ),
    ] = None,
    max_concurrency: options.MaxConcurrency = None,
    max_cost: Annotated[float | None, options.of_model("--max-cost", help="US dollars at most (llm.max_cost).")] = None,
    output: Annotated[
        Path | None,
        options.output(metavar="DIR", help="Folder for rollouts and metrics. A stopped run goes on."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked at most, and ask nothing.")
    ] = False,
    config: options.Config = None,
    settings: options.Settings = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Let a policy answer questions with a search engine: exact match, F1, recall of gold paragraphs, searches.

    Example: stepsearch-data eval --llm gpt-4o-mini --split train --limit 50 --output evals/gpt-4o-mini
    """
    if output:
        end_at_once()
    from stepsearch_data.evaluation.evaluate import evaluate as run
    from stepsearch_data.evaluation.evaluate import rehearse
    from stepsearch_data.evaluation.setup import Options
    from stepsearch_data.indexes import Choice

    lengths = {"max_turns": turns, "topk": k, "max_new_tokens": max_tokens, "max_length": length}
    flags = {"llm.base_url": base_url, "llm.max_concurrency": max_concurrency, "llm.max_cost": max_cost}
    setup = Options(
        checkpoint=checkpoint,
        best=best,
        llm=llm,
        raw=raw,
        questions=tuple(questions or ()),
        split=split,
        choice=Choice(corpus, store, index),
        template=template,
        lengths={name: value for name, value in lengths.items() if value is not None},
        limit=limit,
        batch=batch,
        samples=samples,
        temperature=temperature,
        seed=seed,
        output=output,
    )
    load = partial(run_config_over, config, [*engine_settings(engine), *merged_settings(flags, settings)])
    if dry_run:
        _print_rehearsal(rehearse(setup, load), as_json=as_json)
        return
    report = run(setup, load, Reporter(quiet=quiet))
    _print_evaluation(report, output, as_json=as_json)
    raise typer.Exit(QUARANTINED if report.rejects or report.refused else OK)


def _print_rehearsal(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what an evaluation would ask for."""
    if as_json:
        print_json(found)
        return
    cost = "" if found["cost_at_most"] is None else f", ${found['cost_at_most']:,.2f}"
    say(f"{found['rollouts']:,} rollouts, of which {found['there']:,} are there")
    say(f"at most {found['turns_at_most']:,} turns, {found['completion_tokens_at_most']:,} tokens written{cost}")


def _print_evaluation(report: Report, output: Path | None, *, as_json: bool) -> None:
    """Print what a policy's rollouts measure; on stderr what is wrong with them."""
    if as_json:
        print_json({"settings": report.settings, **report.measures, "usage": report.usage})
    else:
        print_measures(report.measures)
        if output:
            say(f"wrote {output}")
    _tell_faults(report)


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


def _tell_faults(report: Report) -> None:
    """Tell on stderr which rows could not be asked or were refused, and what is wrong as a whole."""
    refused = [f"{times:,} × {reason}" for reason, times in report.refused.most_common(REASONS)]
    for times, what, reasons in (
        (len(report.rejects), "rows cannot be asked", report.rejects[:REASONS]),
        (report.refused.total(), "rollouts were refused; the same command tries them again", refused),
    ):
        if times:
            tell(f"{times:,} {what}:", *(f"  {why}" for why in reasons))
    tell(*(f"note: {note}" for note in report.notes()))

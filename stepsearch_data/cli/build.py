"""Commands that build a store, and what they print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from stepsearch_data.builds import engine_settings, make_build, merged_settings, row_settings
from stepsearch_data.cli.common import OK, QUARANTINED, end_at_once
from stepsearch_data.cli.options import (
    ConcurrencyOption,
    ConfigOption,
    CostOption,
    EngineOption,
    ForceOption,
    FreshOption,
    FromOption,
    JsonOption,
    LimitOption,
    LlmOption,
    ModeOption,
    PromptOption,
    QuietOption,
    RpmOption,
    SetOption,
    SourceOption,
    StageOption,
    StoreOption,
    TokensOption,
    ToOption,
    TpmOption,
)
from stepsearch_data.cli.printing import grid, make_console, print_json, store_flag
from stepsearch_data.cli.status import print_status

if TYPE_CHECKING:
    from stepsearch_data.pipeline.runner import Decision, Outcome, Runner
    from stepsearch_data.pipeline.store import Store
    from stepsearch_data.stages.model import Estimate

_ONE_ENGINE = (
    "note: only {0} votes, so ⌈M/2⌉ of M = 1 is its word alone; a second opinion: --engine {0} --engine chargram"
)


def build(
    stage: StageOption = "all",
    first: FromOption = None,
    last: ToOption = None,
    source: SourceOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    limit: LimitOption = None,
    engine: EngineOption = None,
    llm: LlmOption = None,
    prompt: PromptOption = None,
    max_cost: CostOption = None,
    max_tokens_total: TokensOption = None,
    llm_mode: ModeOption = None,
    max_concurrency: ConcurrencyOption = None,
    rpm: RpmOption = None,
    tpm: TpmOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads (run.workers).")] = None,
    fresh: FreshOption = False,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, why, and at what cost.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build the store: run every stage that is not current, in order, and go on where an earlier build stopped.

    Settings, engines and models are those of the store's last build, unless a run file describes them all, or an option
    says otherwise; what is remembered and what is replaced is said first. Keys are never kept.
    """
    end_at_once()
    from stepsearch_data.core.progress import Reporter

    flags = {
        **row_settings(limit, llm, prompt),
        "llm.max_cost": max_cost,
        "llm.max_tokens_total": max_tokens_total,
        "llm.mode": llm_mode and llm_mode.value,
        "llm.max_concurrency": max_concurrency,
        "llm.rpm": rpm,
        "llm.tpm": tpm,
        "run.workers": workers,
    }
    merged = [*engine_settings(engine), *merged_settings(flags, settings)]
    job = make_build((stage, first, last), source, store, config, merged, _say(quiet), fresh=fresh, force=force)
    if dry_run:
        _print_plan(job.plan(), as_json=as_json, estimates=_estimate(job))
        return
    outcomes = job.run(Reporter(quiet=quiet))
    _print_summary(job.store, outcomes, as_json=as_json, quiet=quiet)
    if len(job.config.engines) == 1 and "filter" in {outcome.stage for outcome in outcomes} and not quiet:
        typer.echo(_ONE_ENGINE.format(job.config.engines[0].name), err=True)
    raise typer.Exit(QUARANTINED if any(outcome.rejects for outcome in outcomes) else OK)


def explain(
    stage: StageOption = "all",
    first: FromOption = None,
    last: ToOption = None,
    source: SourceOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    limit: LimitOption = None,
    engine: EngineOption = None,
    llm: LlmOption = None,
    prompt: PromptOption = None,
    fresh: FreshOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say for every stage whether a build would run it, and why: which field changed, from what to what."""
    merged = [*engine_settings(engine), *merged_settings(row_settings(limit, llm, prompt), settings)]
    job = make_build((stage, first, last), source, store, config, merged, _say(), fresh=fresh, force=force)
    _print_plan(job.plan(), as_json=as_json)


def retry_failed(
    store: StoreOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    engine: EngineOption = None,
    llm: LlmOption = None,
    prompt: PromptOption = None,
    max_cost: CostOption = None,
    quiet: QuietOption = False,
) -> None:
    """Ask the model again about the questions that it failed on, and the search engines, then build what follows.

    With the settings of the build, unless told otherwise. What was answered before is replayed, not paid again.
    """
    from stepsearch_data.core.progress import Reporter

    flags = {**row_settings(None, llm, prompt), "llm.max_cost": max_cost}
    merged = [*engine_settings(engine), *merged_settings(flags, settings)]
    job = make_build(("all", "decompose", None), None, store, config, merged, _say(quiet))
    again = job.try_rejected_again()
    if not quiet:
        typer.echo(f"trying {again:,} questions again" if again else "no model and no engine failed", err=True)
    if again:
        outcomes = job.run(Reporter(quiet=quiet))
        _print_summary(job.store, outcomes, as_json=False, quiet=quiet)
        raise typer.Exit(QUARANTINED if any(outcome.rejects for outcome in outcomes) else OK)


def _say(quiet: bool = False) -> Callable[[str], None]:
    return (lambda _: None) if quiet else partial(print, file=sys.stderr)


def _estimate(job: Runner) -> list[Estimate]:
    """Estimate what the stages that would run would ask of a model."""
    running = {decision.stage for decision in job.plan() if decision.runs}
    asking = {name for name in running if job.config.stages[name].uses_model}
    if not asking:
        return []
    from stepsearch_data.pipeline.context import read_rows
    from stepsearch_data.schemas.tables import QUESTIONS
    from stepsearch_data.stages.model import estimate

    with job.questions() as path:
        found = estimate(read_rows(path, QUESTIONS), job.config.stages, job.config.prompts, job.config.llm)
    return [part for part in found if part.stage in asking]


def _print_plan(decisions: Sequence[Decision], *, as_json: bool, estimates: Sequence[Estimate] = ()) -> None:
    """Print what a build would do, a line per stage and per reason, and what it would ask of a model."""
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


def _print_summary(store: Store, outcomes: Sequence[Outcome], *, as_json: bool, quiet: bool) -> None:
    """Print the end of a build: what it made, and what to try next."""
    from stepsearch_data.api import Store as Opened

    ran = {outcome.stage: outcome.ran for outcome in outcomes}
    rows = [row for row in Opened(store.root).status() if row["stage"] in ran]
    if as_json:
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
    print_status(rows)
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
    """Print what was asked of models for this store, in all builds together."""
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

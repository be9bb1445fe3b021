"""Commands that build a store, and what they print."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.text import Text

from stepsearch_data.builds import engine_settings, make_build, merged_settings, row_settings
from stepsearch_data.cli import options
from stepsearch_data.cli.common import OK, QUARANTINED, end_at_once, open_store
from stepsearch_data.cli.printing import grid, make_console, print_json, say, store_flag, tell, teller
from stepsearch_data.core.progress import Reporter

if TYPE_CHECKING:
    from stepsearch_data.api import Store
    from stepsearch_data.pipeline.runner import Decision, Runner
    from stepsearch_data.stages.model import Estimate

_ONE_ENGINE = "note: {0} alone decides which queries are kept; for a second opinion: --engine {0} --engine chargram"
_CALLS = """
SELECT stage AS "asked by", model, count(*) FILTER (NOT cached) AS calls, count(*) FILTER (cached) AS replayed,
       coalesce(sum(prompt_tokens) FILTER (NOT cached), 0)::BIGINT AS "prompt tokens",
       coalesce(sum(completion_tokens) FILTER (NOT cached), 0)::BIGINT AS "reply tokens",
       coalesce(sum(cost) FILTER (NOT cached), 0) AS "US dollars"
FROM llm_calls GROUP BY ALL ORDER BY ALL
"""


def build(
    stage: options.Stage = "all",
    first: options.First = None,
    last: options.Last = None,
    source: options.Sources = None,
    store: options.Store = None,
    config: options.Config = None,
    settings: options.Settings = None,
    limit: options.Limit = None,
    engine: options.Engines = None,
    llm: options.Llm = None,
    prompt: options.Prompts = None,
    max_cost: options.MaxCost = None,
    max_tokens_total: options.MaxTokens = None,
    llm_mode: options.LlmMode = None,
    max_concurrency: options.MaxConcurrency = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads, processes (run.workers).")] = None,
    executor: Annotated[
        str | None, typer.Option("--executor", help="Where: processes, ray or inline (run.executor).")
    ] = None,
    fresh: options.Fresh = False,
    force: options.Force = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would run, why, and at what cost, and stop.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Build the store: run every stage that is not current, in order, and go on where an earlier build stopped.

    Settings, engines and models are those of the store's last build, unless a run file or an option sets others. The
    build first lists what it remembers and what you have replaced. Keys are never kept.
    """
    end_at_once()
    flags = {
        **row_settings(limit, llm, prompt),
        "llm.max_cost": max_cost,
        "llm.max_tokens_total": max_tokens_total,
        "llm.mode": llm_mode,
        "llm.max_concurrency": max_concurrency,
        "llm.rpm": rpm,
        "llm.tpm": tpm,
        "run.workers": workers,
        "run.executor": executor,
    }
    merged = [*engine_settings(engine), *merged_settings(flags, settings)]
    job = make_build((stage, first, last), source, store, config, merged, teller(quiet), fresh=fresh, force=force)
    if dry_run:
        _print_plan(job.plan(), as_json=as_json, estimates=_estimate(job))
        return
    _run(job, quiet=quiet, as_json=as_json)


def explain(
    stage: options.Stage = "all",
    first: options.First = None,
    last: options.Last = None,
    source: options.Sources = None,
    store: options.Store = None,
    config: options.Config = None,
    settings: options.Settings = None,
    limit: options.Limit = None,
    engine: options.Engines = None,
    llm: options.Llm = None,
    prompt: options.Prompts = None,
    fresh: options.Fresh = False,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """List for every stage whether a build would run it, and why: which setting changed, from what to what."""
    merged = [*engine_settings(engine), *merged_settings(row_settings(limit, llm, prompt), settings)]
    job = make_build((stage, first, last), source, store, config, merged, tell, fresh=fresh, force=force)
    _print_plan(job.plan(), as_json=as_json)


def retry_failed(
    store: options.Store = None,
    config: options.Config = None,
    settings: options.Settings = None,
    engine: options.Engines = None,
    llm: options.Llm = None,
    prompt: options.Prompts = None,
    max_cost: options.MaxCost = None,
    quiet: options.Quiet = False,
) -> None:
    """Ask models and search engines again about the questions on which they failed, then build what follows.

    Uses the settings of the last build, unless an option sets others. Earlier replies are replayed, not paid again.
    """
    flags = {**row_settings(None, llm, prompt), "llm.max_cost": max_cost}
    merged = [*engine_settings(engine), *merged_settings(flags, settings)]
    job = make_build(("all", "compose", None), None, store, config, merged, teller(quiet))
    again = job.try_rejected_again()
    teller(quiet)(f"trying {again:,} questions again" if again else "no model and no engine failed")
    if again:
        _run(job, quiet=quiet)


def _run(job: Runner, *, quiet: bool, as_json: bool = False) -> NoReturn:
    """Run a build, print what the store holds then, and exit."""
    outcomes = job.run(Reporter(quiet=quiet))
    store = open_store(job.store.root, None)
    rejects = sum(outcome.rejects for outcome in outcomes)
    if as_json:
        ran = {outcome.stage: outcome.ran for outcome in outcomes}
        stages = [{**row, "ran": ran[row["stage"]]} for row in store.status() if row["stage"] in ran]
        print_json({"store": store.folder.name, "digest": store.folder.digest(), "stages": stages})
    elif not quiet:
        _print_verdict(store, {name for outcome in outcomes for name in outcome.entry.outputs}, rejects)
    if len(job.config.engines) == 1 and "filter" in {outcome.stage for outcome in outcomes} and not quiet:
        tell(_ONE_ENGINE.format(job.config.engines[0].name))
    raise typer.Exit(QUARANTINED if rejects else OK)


def _estimate(job: Runner) -> list[Estimate]:
    """Estimate what the stages that would run would ask of a model."""
    running = {decision.stage for decision in job.plan() if decision.runs}
    asking = {name for name in running if job.config.stages[name].uses_model}
    if not asking:
        return []
    from stepsearch_data.stages.model import asked_of, estimate

    with job.rehearsed() as found, TemporaryDirectory() as scratch:
        asked = asked_of(found, Path(scratch))
        return estimate(asked, asking, job.config.stages, job.config.prompts, job.config.llm)


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
        composes = any(estimate.stage == "compose" for estimate in estimates)
        title = "Estimate. Only 'compose, at most' counts repairs." if composes else "Estimate, without repairs"
        columns = ("stage", "model", "calls", "replayed", "prompt tokens", "reply tokens", "US dollars")
        told = [line for estimate in estimates for line in _bounds(estimate)]
        grid(columns, [tuple(asdict(line).values())[:-1] for line in told], title=title)


def _bounds(estimate: Estimate) -> list[Estimate]:
    """Return the lines of an estimate: two where the replies decide what is asked."""
    if estimate.most is None:
        return [estimate]
    names = (f"{estimate.stage}, at least", f"{estimate.stage}, at most")
    return [replace(each, stage=name) for each, name in zip((estimate, estimate.most), names, strict=True)]


def _print_verdict(store: Store, made: Collection[str], rejects: int) -> None:
    """Print what a build made, what was asked of models for it in all builds together, and what to try next."""
    counts = {name: rows for name, rows in store.tables.items() if name in made}
    parts = [
        f"{counts[name]:,} {name}" for name in ("questions", "passages", "trajectories", "pairs") if name in counts
    ]
    if "quality" in counts:
        (passed,) = store.sql("SELECT count(*) AS n FROM quality WHERE passed")["n"].to_pylist()
        parts.append(f"{passed:,} trajectories pass the gates")
    say((f"{store.folder.name}: ", "bold"), ", ".join([*parts, f"{rejects:,} rejects"]))
    if store.folder.has_log("llm_calls"):
        calls = store.sql(_CALLS)
        grid(calls.column_names, [tuple(row.values()) for row in calls.to_pylist()])
    flag = store_flag(store.folder)
    counted = "SELECT stage, reason" if rejects else "SELECT source, hops"
    table = "rejects" if rejects else "trajectories"
    sql = f'sql{flag} "{counted}, count(*) AS n FROM {table} GROUP BY ALL ORDER BY ALL"'
    say("try next:", style="bold")
    for command in (f"show{flag}", f"audit{flag}", f"view{flag}", sql):
        make_console().print(Text(f"  stepsearch-data {command}"), soft_wrap=True)

"""Verbs that build a store, or tell how it stands."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepsearch_data.cli.common import (
    OK,
    QUARANTINED,
    end_at_once,
    merged_settings,
    open_store,
    recalled,
    run_config,
)
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
    engine_settings,
)
from stepsearch_data.core.errors import ConfigError, StepSearchError

if TYPE_CHECKING:
    from stepsearch_data.pipeline.engine import Build

_ONE_ENGINE = (
    "note: only {0} votes, so ⌈M/2⌉ of M = 1 is its word alone; a second opinion: --engine {0} --engine chargram"
)


def init(
    path: Annotated[Path, typer.Argument(help="Run file to write.")] = Path("stepsearch.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented run file with every setting at its default."""
    from stepsearch_data.pipeline.run_file import run_file
    from stepsearch_data.stages import STAGES

    if path.exists() and not force:
        raise ConfigError(f"{path} exists already", "overwrite it with --force")
    try:
        path.write_text(run_file(STAGES), encoding="utf-8")
    except OSError as error:
        raise StepSearchError(f"cannot write {path}: {error.strerror}") from error
    typer.echo(f"wrote {path}; build with: stepsearch-data build --config {shlex.quote(str(path))}", err=True)


def synth(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.jsonl or .jsonl.gz).")],
    questions: Annotated[
        int, typer.Option("--questions", "-n", min=1, max=100_000_000, help="Number of questions.")
    ] = 200,
    paragraphs: Annotated[
        int | None,
        typer.Option(
            "--paragraphs", min=1, max=1_000_000_000, help="Distinct paragraphs of the world (default 5.6 a question)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=-(2**63), max=2**63 - 1, help="Same seed, same bytes.")] = 0,
    per_question: Annotated[
        int, typer.Option("--per-question", min=4, max=1_000, help="Paragraphs that come with a question.")
    ] = 20,
    sentences: Annotated[
        int,
        typer.Option(
            "--sentences", min=0, max=1_000, help="Sentences a paragraph: the fact, then filler; 0: a note of it."
        ),
    ] = 4,
    quiet: QuietOption = False,
) -> None:
    """Write a synthetic world in MuSiQue's format: made-up entities, 2-4 hop questions of every graph shape."""
    from stepsearch_data.core.progress import Reporter
    from stepsearch_data.synth import WorldConfig, write_world

    try:
        world = WorldConfig(questions, paragraphs, seed, per_question, sentences)
        with Reporter(quiet=quiet).stage("synth") as meter:
            meter.expect(questions)
            written = write_world(world, output, lambda _: meter.advance())
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise StepSearchError(f"cannot write {output}: {error.strerror}") from error
    if not quiet:
        source = shlex.quote(f"musique={output}")
        typer.echo(f"wrote {written:,} questions; build: stepsearch-data build --source {source}", err=True)


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
    from stepsearch_data.cli import status as display
    from stepsearch_data.core.progress import Reporter

    flags = {
        **_row_settings(limit, llm, prompt),
        "llm.max_cost": max_cost,
        "llm.max_tokens_total": max_tokens_total,
        "llm.mode": llm_mode and llm_mode.value,
        "llm.max_concurrency": max_concurrency,
        "llm.rpm": rpm,
        "llm.tpm": tpm,
        "run.workers": workers,
    }
    merged = [*engine_settings(engine), *merged_settings(flags, settings)]
    job = _build((stage, first, last), source, store, config, merged, fresh=fresh, force=force, quiet=quiet)
    if dry_run:
        display.plan(job.plan(), as_json=as_json, estimates=_estimate(job))
        return
    outcomes = job.run(Reporter(quiet=quiet))
    display.summary(job.store, outcomes, as_json=as_json, quiet=quiet)
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
    from stepsearch_data.cli import status as display

    merged = [*engine_settings(engine), *merged_settings(_row_settings(limit, llm, prompt), settings)]
    job = _build((stage, first, last), source, store, config, merged, fresh=fresh, force=force)
    display.plan(job.plan(), as_json=as_json)


def stages(as_json: JsonOption = False) -> None:
    """List the stages, with what each reads, writes and can be told (`--set STAGE.KEY=VALUE`)."""
    from stepsearch_data.cli import status as display
    from stepsearch_data.stages import STAGES

    display.stages(STAGES, as_json=as_json)


def status(store: StoreOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what the store holds: rows, bytes, seconds and rejects of every stage."""
    from stepsearch_data.cli import status as display
    from stepsearch_data.stages import STAGES

    display.status(open_store(store, config), STAGES, as_json=as_json)


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
    from stepsearch_data.cli import status as display
    from stepsearch_data.core.progress import Reporter

    flags = {**_row_settings(None, llm, prompt), "llm.max_cost": max_cost}
    merged = [*engine_settings(engine), *merged_settings(flags, settings)]
    job = _build(("all", "decompose", None), None, store, config, merged, quiet=quiet)
    again = job.try_rejected_again()
    if not quiet:
        typer.echo(f"trying {again:,} questions again" if again else "no model and no engine failed", err=True)
    if again:
        outcomes = job.run(Reporter(quiet=quiet))
        display.summary(job.store, outcomes, as_json=False, quiet=quiet)
        raise typer.Exit(QUARANTINED if any(outcome.rejects for outcome in outcomes) else OK)


def doctor(
    llm: Annotated[str, typer.Option("--llm", metavar="MODEL", help="Model to try.")],
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Check key, endpoint, model and structured output with one cheap call, and say what is wrong in words."""
    import asyncio

    from stepsearch_data.llm.doctor import examine

    for finding in asyncio.run(examine(run_config(config, settings).llm, llm)):
        typer.echo(finding)


def _row_settings(limit: int | None, llm: str | None, prompts: list[str] | None) -> dict[str, Any]:
    """The settings that decide rows, of the flags that stand for them."""
    files: dict[str, str] = {}
    for text in prompts or []:
        name, separator, file = text.partition("=")
        if not separator:
            raise ConfigError(f"--prompt {text}: expected NAME=FILE", "for example --prompt decompose=mine.txt")
        files[f"prompts.{name}"] = file
    return {"load.limit": limit, "decompose.llm": llm, "queries.llm": llm, **files}


def _build(
    chosen: tuple[str, str | None, str | None],
    source: list[str] | None,
    store: Path | None,
    config: Path | None,
    settings: list[str],
    *,
    fresh: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> Build:
    """The build that is asked for. What the store remembers and what is replaced of it is said. Raises ConfigError."""
    from stepsearch_data.cli.status import remembered as tell
    from stepsearch_data.pipeline.engine import Build
    from stepsearch_data.stages import STAGES, check, select

    before = recalled(store or run_config(config).store)
    run = run_config(config, settings, store, source, None if fresh else before.settings)
    if not (fresh or config):
        run = replace(run, lost={key: owner for key, owner in before.lost.items() if key not in run.given})
    if not quiet:
        tell(before.settings, run)
    check(run.stages, len(run.engines))
    job = Build(STAGES, run, select(*chosen), force=force)
    if run.lost:
        _check_lost(job)
    return job


def _check_lost(job: Build) -> None:
    """Raises ConfigError where a stage would run without what it was made with and the store does not keep."""
    running = {decision.stage for decision in job.plan() if decision.runs}
    asking = {"llm" for name in running if job.config.stages[name].uses_model}
    for key, owner in job.config.lost.items():
        if owner in running | asking:
            raise ConfigError(
                f"{owner} was built with {key}, of which the store keeps no value",
                f"give it again: --set '{key}=…'; or go on without: --set {key}=default",
            )


def _estimate(job: Build) -> list[Any]:
    """What the stages that would run would ask of a model."""
    running = {decision.stage for decision in job.plan() if decision.runs}
    asking = {name for name, config in job.config.stages.items() if config.uses_model} & running
    if not asking:
        return []
    from stepsearch_data.pipeline.context import read_rows
    from stepsearch_data.schemas.tables import QUESTIONS
    from stepsearch_data.stages.model import estimate

    with job.questions() as path:
        found = estimate(read_rows(path, QUESTIONS), job.config.stages, job.config.prompts, job.config.llm)
    return [part for part in found if part.stage in asking]

"""The command line: thin verbs over the pipeline. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from stepsearch_data import __version__
from stepsearch_data.options import (
    ConcurrencyOption,
    ConfigOption,
    CorpusOption,
    CostOption,
    EngineOption,
    ForceOption,
    FromOption,
    IndexOption,
    JsonOption,
    LicenceOption,
    LimitOption,
    LlmOption,
    ModeOption,
    NeededCorpusOption,
    PatienceOption,
    Preset,
    PromptOption,
    QuietOption,
    RepoArgument,
    RolloutsOption,
    RpmOption,
    SetOption,
    SourceOption,
    StageOption,
    StoreOption,
    SwitchOption,
    TitleOption,
    TokensOption,
    ToOption,
    TpmOption,
    engine_settings,
    licences_of,
)
from stepsearch_data.pipeline.errors import ConfigError, PublishError, StepSearchError
from stepsearch_data.terminal import visible

if TYPE_CHECKING:
    from stepsearch_data.pipeline.config import RunConfig
    from stepsearch_data.pipeline.engine import Build
    from stepsearch_data.pipeline.progress import Reporter
    from stepsearch_data.release.hub import Hub

OK, QUARANTINED, INTERRUPTED = 0, 3, 130
_GOES_ON = "interrupted; the same command goes on where it stopped"
_ONE_ENGINE = (
    "note: only {0} votes, so ⌈M/2⌉ of M = 1 is its word alone; a second opinion: --engine {0} --engine chargram"
)
_FORMATS = (  # exports.formats has them in full, but a help text must not need Arrow
    "verl, stepsearch, search-r1, verl-sft, trl-sft, trl-grpo, trl-dpo, trl-stepwise, llama-factory, sharegpt, "
    "verifiers, corpus"
)
_GLANCE = 10.0  # seconds that a dry run waits for the Hub
_SHOW_CURSOR = b"\x1b[?25h\n"  # a progress bar hides it

EPILOG = (
    "Data goes to stdout, logs and progress to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, "
    "3 done with rows set aside (in the table rejects, or in rejects.jsonl beside the output), 4 budget reached, "
    "5 the model's server or the Hub does not answer, 130 interrupted (the same command goes on)."
)


class Cli(TyperGroup):
    """Turns our errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; see the exit codes above."""
        try:
            return super().invoke(ctx)
        except StepSearchError as error:
            complain(error)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of our stdout has gone, as `head` does
            os._exit(OK)  # at once: DuckDB, left in the middle of a result, would complain about it on its way out
        except OSError as error:  # what a verb does not know how to name, such as stdout on a full disk
            ctx.exit(_failed(error))


def _failed(error: OSError) -> int:
    complain(StepSearchError(f"{error.filename2 or error.filename or 'output'}: {error.strerror or error}"))
    _forget_stdout()
    return StepSearchError.exit_code


def _forget_stdout() -> None:
    """Send what is still buffered nowhere, or Python would complain about it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(error: StepSearchError) -> None:
    """An error as one line on stderr, and its hint as another."""
    typer.echo(f"error: {visible(error.message)}", err=True)
    if error.hint:
        typer.echo(f"hint: {visible(error.hint)}", err=True)


app = typer.Typer(
    name="stepsearch-data",
    cls=Cli,
    help="Multi-hop questions in, step-by-step search trajectories out.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How `sql` prints rows."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"
    parquet = "parquet"


class Demo(StrEnum):
    """How much of the demo `train` runs."""

    quick = "quick"
    full = "full"
    all = "all"


class Axis(StrEnum):
    """What `plot` compares runs by."""

    updates = "updates"
    rollouts = "rollouts"
    tokens = "tokens"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _print_formats(wanted: bool) -> None:
    if wanted:
        from stepsearch_data import display
        from stepsearch_data.exports.formats import FORMATS

        display.formats(FORMATS)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


@app.command()
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
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, why, and at what cost.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build the store: run every stage that is not current, in order, and go on where an earlier build stopped."""
    _end_at_once()
    from stepsearch_data import display
    from stepsearch_data.pipeline.progress import Reporter

    flags = {
        **_rows(limit, llm, prompt),
        "llm.max_cost": max_cost,
        "llm.max_tokens_total": max_tokens_total,
        "llm.mode": llm_mode and llm_mode.value,
        "llm.max_concurrency": max_concurrency,
        "llm.rpm": rpm,
        "llm.tpm": tpm,
        "run.workers": workers,
    }
    merged = [*engine_settings(engine), *_merge(flags, settings)]
    job = _build((stage, first, last), source, store, config, merged, force=force)
    if dry_run:
        display.plan(job.plan(), as_json=as_json, estimates=_estimate(job))
        return
    outcomes = job.run(Reporter(quiet=quiet))
    display.summary(job.store, outcomes, as_json=as_json, quiet=quiet)
    if len(job.config.engines) == 1 and "filter" in {outcome.stage for outcome in outcomes} and not quiet:
        typer.echo(_ONE_ENGINE.format(job.config.engines[0].name), err=True)
    raise typer.Exit(QUARANTINED if any(outcome.rejects for outcome in outcomes) else OK)


@app.command()
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
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say for every stage whether a build would run it, and why: which field changed, from what to what."""
    from stepsearch_data import display

    merged = [*engine_settings(engine), *_merge(_rows(limit, llm, prompt), settings)]
    display.plan(_build((stage, first, last), source, store, config, merged, force=force).plan(), as_json=as_json)


@app.command()
def stages(as_json: JsonOption = False) -> None:
    """List the stages, with what each reads, writes and can be told (`--set STAGE.KEY=VALUE`)."""
    from stepsearch_data import display
    from stepsearch_data.stages import STAGES

    display.stages(STAGES, as_json=as_json)


@app.command()
def status(store: StoreOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what the store holds: rows, bytes, seconds and rejects of every stage."""
    from stepsearch_data import display
    from stepsearch_data.stages import STAGES

    display.status(_open(store, config), STAGES, as_json=as_json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; `-` reads it from stdin.")],
    store: StoreOption = None,
    config: ConfigOption = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="How to print the rows.")] = Format.table,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file, not to stdout.")] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.01, max=86_400, help="Seconds before the query is stopped."),
    ] = 60.0,
) -> None:
    """Query the store with DuckDB SQL, read-only: no other file, no extension, no write can be reached.

    Example: stepsearch-data sql "SELECT hops, count(*) FROM trajectories GROUP BY hops"
    """
    from stepsearch_data import display

    if output is not None and form is Format.table:
        raise ConfigError(
            "a table is for reading, not for a file", "name another: --format csv, json, jsonl or parquet"
        )
    text = sys.stdin.buffer.read().decode(errors="surrogateescape") if query == "-" else query
    display.rows(_open(store, config), text, form.value, output, timeout)


@app.command()
def schema(as_json: JsonOption = False) -> None:
    """Describe every table and column of a store."""
    from stepsearch_data import display

    display.schema(as_json=as_json)


@app.command()
def show(
    question_id: Annotated[
        str | None, typer.Argument(help="Question to show; the first trajectory by default.")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print one trajectory for a human: every round with its queries and documents, gold ones marked."""
    from stepsearch_data import display

    display.trajectory(_open(store, config), question_id, as_json=as_json)


@app.command()
def export(
    form: Annotated[str, typer.Option("--format", "-f", help=f"{_FORMATS}. What each is for: --list.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write the files into.")],
    store: StoreOption = None,
    template: Annotated[
        str,
        typer.Option(
            "--template",
            "-t",
            metavar="NAME|FILE",
            help="How prompts and trajectories are worded: musique (think, search, information, observation, answer), "
            "paper (no observation), tools (chat with tool calls), or a file of yours.",
        ),
    ] = "musique",
    split: Annotated[str | None, typer.Option("--split", help="Only this split (default: a file for each).")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Trajectories that are incomplete, or failed the quality gates, too.")
    ] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    _list: Annotated[
        bool,
        typer.Option("--list", help="Say what each format is for, and exit.", is_eager=True, callback=_print_formats),
    ] = False,
) -> None:
    """Write the trajectories in the file format of a trainer, ready to load.

    Example: stepsearch-data export --format verl --template tools --output verl-data
    """
    from stepsearch_data.exports.export import export as write
    from stepsearch_data.exports.export import find_format
    from stepsearch_data.exports.template_file import load_template
    from stepsearch_data.pipeline.progress import Reporter

    chosen, worded = find_format(form), load_template(template)
    try:
        with Reporter(quiet=quiet).stage("export") as meter:
            written = write(_open(store, config), chosen, worded, output, meter, split=split, everything=everything)
    except OSError as error:
        raise StepSearchError(f"cannot write {error.filename or output}: {error.strerror or error}") from error
    if not quiet:
        for path, rows in written.rows.items():
            typer.echo(f"wrote {rows:,} rows: {path}", err=True)
        typer.echo(f"load: {written.load}", err=True)


@app.command()
def audit(store: StoreOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the data's quality by source and hop count: hits, pass@k, queries kept, leaks.

    pass@k is the share of all written queries, before the vote, whose top k holds a gold passage;
    hop hit@3 the share of hops with a kept query that has one in its top 3.
    """
    from stepsearch_data import display
    from stepsearch_data.audit import audit as measure

    display.audit(measure(_open(store, config)), as_json=as_json)


@app.command()
def verify(
    path: Annotated[
        Path, typer.Argument(help="A store, the folder of a release, or USER/NAME or USER/NAME@TAG on the Hub.")
    ] = Path("store"),
    patience: PatienceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Recompute every digest of a store or a release: which files are as recorded, changed, missing or unexpected.

    Exit code 1 where any is not as recorded. On the Hub, large files are compared by the digests that it keeps.
    """
    from stepsearch_data import display
    from stepsearch_data.pipeline.progress import Reporter
    from stepsearch_data.release.verify import verify as check

    reporter = Reporter(quiet=quiet)
    with reporter.stage("verify") as meter:
        if path.exists() or not _is_name(str(path)):
            report = check(path, meter)
        else:
            hub, revision = _hub(str(path), patience, reporter)
            from stepsearch_data.release.pull import verify_remote

            report = verify_remote(hub, revision, meter)
    if report.faults or not quiet:
        display.verified(report, as_json=as_json)
    raise typer.Exit(StepSearchError.exit_code if report.faults else OK)


@app.command()
def publish(
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Dataset on the Hub.")],
    store: StoreOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of the release (default STORE.release)."),
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Name of this version, such as v1.0.0.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Nobody else may see it.")] = False,
    licences: LicenceOption = None,
    max_rejects: Annotated[
        float, typer.Option("--max-rejects", min=0, max=1, help="Share of rows set aside that is still accepted.")
    ] = 0.05,
    allow_paths: Annotated[
        bool, typer.Option("--allow-paths", help="Even where the settings tell paths of this machine.")
    ] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What the commit says.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the folder and say what would change on the Hub; send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before sending.")] = False,
    patience: PatienceOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Publish a store as a dataset on the Hugging Face Hub: one commit, a tag, and a look at what arrived.

    Needs HF_TOKEN, or `hf auth login`. Whatever interrupts it, the Hub has all of the release or nothing of it, and the
    same command goes on. Look first: stepsearch-data publish USER/NAME --tag v1.0.0 --dry-run
    """
    if not (yes or dry_run or sys.stdin.isatty()):
        raise ConfigError("publishing asks before it sends, and nobody can answer here", "--yes, or look: --dry-run")
    _end_at_once()
    from stepsearch_data import display
    from stepsearch_data.pipeline.progress import Reporter
    from stepsearch_data.release import ReleaseSettings, write_release

    reporter, opened = Reporter(quiet=quiet), _open(store, config)
    hub, revision = _hub(repo, patience or (_GLANCE if dry_run else None), reporter)
    if revision:
        raise ConfigError(f"{repo}: a release is named when it is published", f"--tag {revision}")
    from stepsearch_data.release.publish import carry_out, check_account, check_tag, prepare, rehearse

    check_tag(tag)
    settings = ReleaseSettings(
        name=hub.repo,
        version=tag,
        licences=licences_of(licences),
        max_rejects=max_rejects,
        allow_paths=allow_paths,
    )
    if not dry_run:
        check_account(hub, private=private)
    with reporter.stage("release") as meter:
        release = write_release(opened, output or _beside(opened.root, ".release"), settings, meter)
    reporter.line(f"wrote {release.folder}")
    if dry_run:
        display.rehearsed(rehearse(hub, release, private=private), hub.repo)
        return
    plan = prepare(hub, release)
    if not quiet:
        display.changes(plan, hub.repo)
    if not (plan.nothing or yes or typer.confirm(f"Publish to {hub.url}?", err=True)):
        raise PublishError("nothing was sent")
    with reporter.stage("publish") as meter:
        carry_out(hub, plan, meter, private=private, message=message)
    display.published(plan, hub)


@app.command()
def pull(
    repo: RepoArgument,
    store: StoreOption = None,
    patience: PatienceOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fetch the store of a release from the Hugging Face Hub: for `sql`, `audit`, `export`, `build` and the others.

    Every file is checked against the release's digests before the store appears. An interrupted pull goes on.

    Example: stepsearch-data pull USER/NAME@v1.0.0 --store store
    """
    _end_at_once()
    from stepsearch_data import display
    from stepsearch_data.pipeline.progress import Reporter

    reporter = Reporter(quiet=quiet)
    hub, revision = _hub(repo, patience, reporter)
    from stepsearch_data.release.pull import pull as fetch

    restored = fetch(hub, revision, store or _load_config(config).store, reporter)
    if not quiet:
        display.pulled(restored)


@app.command()
def report(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="What to write: OUTPUT.html, or for large stores a folder OUTPUT."),
    ] = Path("stepsearch-report"),
    store: StoreOption = None,
    title: TitleOption = None,
    folder: Annotated[
        bool, typer.Option("--folder", help="Write a folder even where one file would do: it opens faster.")
    ] = False,
    rollouts: RolloutsOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write the store as a web page to look at and to pass on: funnel, charts, provenance, every trajectory.

    The page needs no network and no server. From about 20 MB on it is a folder: open its index.html.
    Example: stepsearch-data report --store ./store --output my-report
    """
    from stepsearch_data.pipeline.progress import Reporter
    from stepsearch_data.report.rollouts import Rollouts
    from stepsearch_data.report.write import report as write

    try:
        with Reporter(quiet=quiet).stage("report") as meter:
            shown = Rollouts(rollouts or ())
            written = write(_open(store, config), output, meter, title=title, folder=folder, rollouts=shown)
    except OSError as error:
        raise StepSearchError(f"cannot write {error.filename or output}: {error.strerror or error}") from error
    if not quiet:
        megabytes = written.bytes / 1e6
        counted = "1 trajectory" if written.trajectories == 1 else f"{written.trajectories:,} trajectories"
        typer.echo(f"wrote {written.page}: {counted}, {megabytes:,.1f} MB", err=True)


@app.command()
def view(
    store: StoreOption = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes any that is free.")] = 8765,
    browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open a browser (default: on a desktop's terminal).")
    ] = None,
    title: TitleOption = None,
    rollouts: RolloutsOption = None,
    config: ConfigOption = None,
) -> None:
    """Look at the store in a browser, on this machine alone, as it is at each moment: a build may go on meanwhile.

    For stores of any size. From another machine: ssh -L 8765:127.0.0.1:8765 HOST.
    """
    _end_at_once()
    from stepsearch_data.pipeline.progress import Reporter
    from stepsearch_data.report.rollouts import Rollouts
    from stepsearch_data.report.server import view as show_page

    shown = Rollouts(rollouts or ())
    show_page(_open(store, config), port, Reporter(), title=title, browser=browser, rollouts=shown)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What to search for.")],
    store: StoreOption = None,
    corpus: CorpusOption = None,
    index: IndexOption = None,
    engine: EngineOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Documents an engine.")] = 5,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what one or several search engines find, side by side. Default: all engines of the store's index.

    Example: stepsearch-data search "The Barber of Seville composer" --engine bm25 --engine http=http://127.0.0.1:8000
    """
    from stepsearch_data.indexes import Choice
    from stepsearch_data.search import search as ask

    load = partial(_load_before, config, [*engine_settings(engine), *(settings or [])])
    answered = ask(query, Choice(corpus, store, index), load, k, as_json=as_json)
    raise typer.Exit(OK if answered else StepSearchError.exit_code)


@app.command()
def index(
    corpus: NeededCorpusOption,
    index: IndexOption = None,
    engine: EngineOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Build or renew the index of a corpus of your own, for `serve`, `search` and `--engine NAME=INDEX`.

    An index that is current is left alone, and one that was interrupted goes on. The default engine, bm25, is the
    fastest; from about a million passages tantivy needs less memory and time to build.
    """
    _end_at_once()
    from stepsearch_data.indexes import build
    from stepsearch_data.pipeline.progress import Reporter

    run = _load_config(config, [*engine_settings(engine), *(settings or [])])
    rejects = build(corpus, index, run.engines, Reporter(quiet=quiet))
    raise typer.Exit(QUARANTINED if rejects else OK)


@app.command()
def serve(
    corpus: CorpusOption = None,
    store: StoreOption = None,
    index: IndexOption = None,
    engine: EngineOption = None,
    host: Annotated[str, typer.Option("--host", help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes any that is free.")] = 8000,
    topk: Annotated[int, typer.Option("--topk", min=1, max=1_000, help="Documents a query, unless it says.")] = 3,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads that search (run.workers).")] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Serve Search-R1's /retrieve over HTTP: drop-in for its retrieval_server.py, for RL rollouts.

    The index of a corpus is built first where there is none. Also: GET /health, GET /metrics (Prometheus).
    """
    _end_at_once()
    from stepsearch_data.indexes import Choice
    from stepsearch_data.serve.start import start

    flags = [*engine_settings(engine), *_merge({"run.workers": workers}, settings)]
    start(Choice(corpus, store, index), partial(_load_before, config, flags), host, port, topk)


@app.command("retry-failed")
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

    Give the same settings as for the build. What was answered before is replayed, not paid again.
    """
    from stepsearch_data import display
    from stepsearch_data.pipeline.progress import Reporter

    flags = {**_rows(None, llm, prompt), "llm.max_cost": max_cost}
    merged = [*engine_settings(engine), *_merge(flags, settings)]
    job = _build(("all", "decompose", None), None, store, config, merged, force=False)
    again = job.try_rejected_again()
    if not quiet:
        typer.echo(f"trying {again:,} questions again" if again else "no model and no engine failed", err=True)
    if again:
        outcomes = job.run(Reporter(quiet=quiet))
        display.summary(job.store, outcomes, as_json=False, quiet=quiet)
        raise typer.Exit(QUARANTINED if any(outcome.rejects for outcome in outcomes) else OK)


@app.command()
def doctor(
    llm: Annotated[str, typer.Option("--llm", metavar="MODEL", help="Model to try.")],
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Check key, endpoint, model and structured output with one cheap call, and say what is wrong in words."""
    import asyncio

    from stepsearch_data.pipeline.llm.doctor import examine

    for finding in asyncio.run(examine(_load_config(config, settings).llm, llm)):
        typer.echo(finding)


@app.command()
def score(
    rollouts: Annotated[
        Path | None,
        typer.Argument(help="Rollouts to score: JSON Lines, one JSON array (.gz, .bz2, .zst too) or Parquet."),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option("--answers", help="Score answers instead: a file of `prediction` and `answers`.")
    ] = None,
    preset: Annotated[Preset, typer.Option("--preset", help="The paper's equations, or the released code.")] = (
        Preset.paper
    ),
    switches: SwitchOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Parquet file to write (default ROLLOUTS.scores.parquet, of answers FILE.answer-scores.parquet).",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes (default: all cores).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, write no Parquet.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Score any model's rollouts with StepSearch's rewards: every component, for every round.

    Reads `response, target, search_keys, support_docs`, and the names that verl and Search-R1 have for them.
    """
    from stepsearch_data import display
    from stepsearch_data.pipeline.progress import Reporter
    from stepsearch_data.score import default_output, rejects_of, score_file
    from stepsearch_data.scorers import Scorer, configure

    file = rollouts or answers
    if file is None or (rollouts and answers):
        raise ConfigError("expected one file: ROLLOUTS, or --answers FILE")
    if answers and switches:
        raise ConfigError("--set is for rollouts: the official answer metrics have no switches")
    if as_json and output:
        raise ConfigError("--json prints, --output writes Parquet", "leave one out")
    scorer = Scorer("answers" if answers else "rollouts", configure(preset.value, switches or ()), as_json)
    target = output or default_output(file, scorer.kind)
    report = score_file(file, scorer, None if as_json else target, workers=workers, reporter=Reporter(quiet=quiet))
    if not (as_json or quiet):
        display.scores(report, target, kind=scorer.kind)
    if report.rejected:
        display.set_aside(report, rejects_of(target))
        raise typer.Exit(QUARANTINED)


@app.command()
def train(
    recipe: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="RECIPE", help="TOML file of a training; recipes/ has some."),
    ] = None,
    store: StoreOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of the run (default runs/steppo, or runs/demo)."),
    ] = None,
    engine: EngineOption = None,
    index: IndexOption = None,
    corpus: CorpusOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting of the recipe, or of an engine."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the output.")] = False,
    report_to: Annotated[
        str | None, typer.Option("--report-to", help="tensorboard, wandb, trackio or none (report_to).")
    ] = None,
    demo: Annotated[
        Demo | None,
        typer.Option("--demo", help="Compare PPO with and without step rewards, on a made-up world with tiny models."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Trainings of the demo at once (default: all cores).")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a policy on a store with StePPO: PPO with a reward for every search.

    Questions come from the store, documents from its engine or another. --demo needs neither, nor a GPU.

    Example: stepsearch-data train --config recipes/qwen2.5-3b.toml --store musique --engine http=http://localhost:8000
    """
    from stepsearch_data import display
    from stepsearch_data.indexes import Choice
    from stepsearch_data.trainer.recipe import load_recipe
    from stepsearch_data.trainer.start import demonstrate
    from stepsearch_data.trainer.start import train as run

    if (recipe is None) == (demo is None):
        raise ConfigError("expected a recipe or the demo", "name one: --config RECIPE, or --demo quick")
    say = partial(typer.echo, err=True) if not quiet else lambda _: None
    of_engines = [setting for setting in settings or [] if setting.startswith("engines.")]
    load = partial(_load_before, None, [*engine_settings(engine), *of_engines])
    if demo:
        compared = demonstrate(output or Path("runs/demo"), demo.value, load, workers or os.cpu_count() or 1, say)
        display.curves(compared, as_json=as_json)
        return
    flags = {"store": store, "output": output, "report_to": report_to}
    named = [f"{key}={json.dumps(str(value))}" for key, value in flags.items() if value is not None]
    chosen = load_recipe(recipe, [*named, *(setting for setting in settings or [] if setting not in of_engines)])
    choice = Choice(corpus, chosen.store, index)
    last = run(chosen, choice, load, say, resume=resume, quiet=quiet)
    if os.environ.get("RANK", "0") == "0":  # under accelerate, one process speaks for all
        typer.echo(last)


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or folders that hold some.")],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="What to draw, a panel each: eval_em (default), reward, kl..."),
    ] = None,
    x: Annotated[Axis, typer.Option("--x", help="What the runs are compared by.")] = Axis.updates,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to draw: .png, .svg or .html.")] = Path(
        "curves.png"
    ),
    at: Annotated[
        list[float] | None,
        typer.Option("--at", min=0, help="Budgets of the table (default: quarters of what all runs did)."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="VARIANT", help="What is subtracted (default: the first variant)."),
    ] = None,
    solved: Annotated[float, typer.Option("--solved", help="Held-out exact match of a solved run.")] = 0.9,
    smooth: Annotated[
        int, typer.Option("--smooth", min=1, help="Draw moving means of so many updates; the table has none.")
    ] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw learning curves of training runs, seeds as a mean with a band, and print values and paired differences.

    Variants are drawn in the order of the folders given. Example: stepsearch-data plot runs/weak runs/strong -m eval_em
    """
    from stepsearch_data import display
    from stepsearch_data.trainer.chart import check_name, draw, write
    from stepsearch_data.trainer.curves import SOLVED_BY, Curves
    from stepsearch_data.trainer.runs import load_runs

    check_name(output)
    found, notes = load_runs(runs)
    curves = Curves(found, metric or [SOLVED_BY], x.value)
    compared = curves.compare(sorted(at) if at else curves.budgets(), against, solved)
    write(draw(curves, smooth), output)
    display.curves(compared, as_json=as_json)
    if not quiet:
        for note in [*notes, *curves.notes, f"wrote {output}"]:
            typer.echo(note, err=True)


@app.command("eval")
def evaluate(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="A run of `train`, one of its checkpoints, or a language model of `transformers`."),
    ] = None,
    llm: Annotated[
        str | None, typer.Option("--llm", metavar="MODEL", help="Model of an OpenAI-compatible server, instead.")
    ] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="The server (llm.base_url).")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue one text (/completions), as trained policies do, not a chat.")
    ] = False,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            "--questions",
            metavar="KIND=FILE",
            help="Questions to ask, repeatable: an official file of musique, hotpotqa, 2wiki or bamboogle, or jsonl. "
            "Default: those of the store.",
        ),
    ] = None,
    store: StoreOption = None,
    split: Annotated[str, typer.Option("--split", help="Split of the store to ask.")] = "validation",
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Only the first N questions of each source.")
    ] = None,
    engine: EngineOption = None,
    index: IndexOption = None,
    corpus: CorpusOption = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            "-t",
            metavar="NAME|FILE",
            help="How prompts are worded: musique, paper or a file of yours (default: as trained, or musique).",
        ),
    ] = None,
    turns: Annotated[
        int | None, typer.Option("--turns", min=0, help="Turns that may search (default: as trained, or 5).")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, max=100, help="Documents a search (default: as trained, or 3).")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Tokens of a turn (default: as trained, or 500).")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option("--length", min=16, help="Tokens of a rollout and its prompt (default: as trained, or 4096)."),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling.")] = 0,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Rollouts at once (default 64; of a server 4 × concurrency).")
    ] = None,
    max_concurrency: ConcurrencyOption = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="US dollars at most (llm.max_cost).")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for rollouts and metrics: can go on, once stopped."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let a policy answer questions with a search engine: exact match, F1, recall of gold paragraphs, searches.

    Example: stepsearch-data eval --llm gpt-4o-mini --split train --limit 50 --output evals/gpt-4o-mini
    """
    if output:
        _end_at_once()
    from stepsearch_data import display
    from stepsearch_data.indexes import Choice
    from stepsearch_data.pipeline.progress import Reporter
    from stepsearch_data.stages.formats import PARSERS
    from stepsearch_data.trainer.evaluate import evaluate as run
    from stepsearch_data.trainer.setup import Options

    lengths = {"turns": turns, "documents": k, "turn": max_tokens, "total": length}
    flags = {"llm.base_url": base_url, "llm.max_concurrency": max_concurrency, "llm.max_cost": max_cost}
    options = Options(
        checkpoint=checkpoint,
        llm=llm,
        raw=raw,
        questions=tuple(questions or ()),
        split=split,
        choice=Choice(corpus, store, index),
        template=template,
        lengths={name: value for name, value in lengths.items() if value is not None},
        limit=limit,
        batch=batch,
        temperature=temperature,
        seed=seed,
        output=output,
    )
    load = partial(_load_before, config, [*engine_settings(engine), *_merge(flags, settings)])
    report = run(options, load, PARSERS, Reporter(quiet=quiet))
    display.evaluation(report, output, as_json=as_json)
    raise typer.Exit(QUARANTINED if report.rejects or report.refused else OK)


@app.command()
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


@app.command()
def synth(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.jsonl or .jsonl.gz).")],
    questions: Annotated[int, typer.Option("--questions", "-n", min=1, help="Number of questions.")] = 200,
    paragraphs: Annotated[
        int | None,
        typer.Option("--paragraphs", min=1, help="Distinct paragraphs of the world (default 5.6 a question)."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same bytes.")] = 0,
    per_question: Annotated[
        int, typer.Option("--per-question", min=4, help="Paragraphs that come with a question.")
    ] = 20,
    sentences: Annotated[
        int, typer.Option("--sentences", min=1, help="Sentences a paragraph: the fact, then filler.")
    ] = 4,
    quiet: QuietOption = False,
) -> None:
    """Write a synthetic world in MuSiQue's format: made-up entities, 2-4 hop questions of every graph shape."""
    from stepsearch_data.pipeline.progress import Reporter
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


def _load_config(
    config: Path | None,
    settings: list[str] | None = None,
    store: Path | None = None,
    source: list[str] | None = None,
) -> RunConfig:
    from stepsearch_data.pipeline.config import load_config
    from stepsearch_data.stages import STAGES

    return load_config(STAGES, config, settings or (), store=store, sources=source or ())


def _load_before(config: Path | None, settings: list[str], first: Sequence[str]) -> RunConfig:
    """The configuration with `first` below what the command line says."""
    return _load_config(config, [*first, *settings])


def _rows(limit: int | None, llm: str | None, prompts: list[str] | None) -> dict[str, Any]:
    """The settings that decide rows, of the flags that stand for them."""
    files: dict[str, str] = {}
    for text in prompts or []:
        name, separator, file = text.partition("=")
        if not separator:
            raise ConfigError(f"--prompt {text}: expected NAME=FILE", "for example --prompt decompose=mine.txt")
        files[f"prompts.{name}"] = file
    return {"load.limit": limit, "decompose.llm": llm, "queries.llm": llm, **files}


def _merge(flags: dict[str, Any], settings: list[str] | None) -> list[str]:
    """Flags as settings; an explicit --set wins."""
    return [*(f"{key}={value}" for key, value in flags.items() if value is not None), *(settings or [])]


def _build(
    chosen: tuple[str, str | None, str | None],
    source: list[str] | None,
    store: Path | None,
    config: Path | None,
    settings: list[str],
    *,
    force: bool,
) -> Build:
    from stepsearch_data.pipeline.engine import Build
    from stepsearch_data.stages import STAGES, check, select

    run = _load_config(config, settings, store, source)
    check(run.stages, len(run.engines))
    return Build(STAGES, run, select(*chosen), force=force)


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


def _open(store: Path | None, config: Path | None) -> Any:
    from stepsearch_data.pipeline.store import Store

    return Store.open(store or _load_config(config).store)


def _hub(repo: str, patience: float | None, reporter: Reporter) -> tuple[Hub, str | None]:
    """A repository on the Hub, and the revision that was named with it."""
    try:
        from stepsearch_data.release.hub import PATIENCE, Hub, parse_name
    except ImportError as error:
        hint = "pip install 'stepsearch-data[hub]'"
        raise PublishError(f"the Hub needs an extra: there is no {error.name}", hint) from error
    name, revision = parse_name(repo)
    return Hub(name, patience or PATIENCE, reporter.line), revision


def _beside(folder: Path, suffix: str) -> Path:
    """A folder's neighbour of the same name and a suffix, also where the name is `.` or `..`."""
    named = folder if folder.name.strip(".") else folder.resolve()
    return named.with_name(f"{named.name}{suffix}")


def _is_name(text: str) -> bool:
    """Whether this may be a dataset on the Hub."""
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith("/")


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    """End at once: a store is whole at every moment, and an exception could leave some lock held forever."""
    cache = sys.modules.get("stepsearch_data.pipeline.remote.cache")
    if cache:
        cache.rescue()
    os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + f"{_GOES_ON}\n".encode())
    os._exit(INTERRUPTED)


def _end_at_once() -> None:
    """Have SIGINT and SIGTERM end the process, unless they are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _mend_streams() -> None:
    """Streams that exist, whatever the caller closed, and that can print every character in some way."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, closefd=False))  # as Python's own: never closed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Entry point of the console script."""
    _mend_streams()
    try:
        app()
    except OSError as error:  # from the help, which is printed before any verb is invoked
        sys.exit(_failed(error))

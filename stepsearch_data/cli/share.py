"""Commands that pass a store on: to a trainer, to the Hub, and from it; and what they print."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stepsearch_data.builds import run_config
from stepsearch_data.cli import options
from stepsearch_data.cli.common import OK, beside, end_at_once, from_environment, open_store, refuse
from stepsearch_data.cli.hub import Sending, find_hub, send
from stepsearch_data.cli.policy import publish_run
from stepsearch_data.cli.printing import grid, print_json, say, store_flag, tell
from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.exports import FORMATS

if TYPE_CHECKING:
    from stepsearch_data.release.hub import Hub
    from stepsearch_data.release.pull import Restored
    from stepsearch_data.release.record import Release
    from stepsearch_data.release.verify import Report


def _print_formats(wanted: bool) -> None:
    if wanted:
        from stepsearch_data.exports.export import find_format

        formats = map(find_format, FORMATS.names())
        grid(("format", "files", "for"), [(form.name, f".{form.suffix}", form.doc) for form in formats])
        raise typer.Exit


def export(
    form: Annotated[str, typer.Option("--format", "-f", help=f"{', '.join(FORMATS.ours)}. What each is for: --list.")],
    output: Annotated[Path, options.output(metavar="DIR", help="Folder to write the files into.")],
    store: options.Store = None,
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
        bool,
        typer.Option(
            "--all", help="Include what is incomplete or failed a quality gate; of marks, all that is unmarked."
        ),
    ] = False,
    allow_templates: options.AllowTemplates = False,
    origin: Annotated[
        Literal["gold", "teacher", "all"],
        typer.Option("--origin", help="Whose trajectories: gold ones, those taken of a teacher's rollouts, or both."),
    ] = "gold",
    pass_rate: Annotated[
        str | None,
        typer.Option(
            "--pass-rate",
            metavar="LOW-HIGH|BAND",
            help="Only questions that a policy passes so often: 0.2-0.8, or unsolved, hard, medium, easy, solved.",
        ),
    ] = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
    _list: Annotated[
        bool,
        typer.Option("--list", help="List the formats and what each is for.", is_eager=True, callback=_print_formats),
    ] = False,
) -> None:
    """Write the trajectories in the file format of a trainer, ready to load.

    Example: stepsearch-data export --format verl --template tools --output verl-data
    """
    opened = open_store(store, config)
    written = opened.export(
        form,
        output,
        template=template,
        split=split,
        everything=everything,
        allow_templates=allow_templates,
        pass_rate=pass_rate,
        origin=origin,
        progress=not quiet,
    )
    if not quiet:
        for path, rows in written.rows.items():
            tell(f"wrote {rows:,} rows: {path}")
        tell(f"load: {written.load}")


def publish(
    context: typer.Context,
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Dataset, or with --run model, on the Hub.")],
    store: options.Store = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="A run of `train`, whose policy is published instead, as a model."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Of the run, the checkpoint with the highest held-out exact match.")
    ] = False,
    evaluations: Annotated[
        list[Path] | None,
        typer.Option(
            "--evaluation", metavar="DIR", help="An --output of `eval` of the policy, for its card; repeatable."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="USER/NAME", help="The release of the store that the run was trained on."),
    ] = None,
    output: Annotated[
        Path | None,
        options.output(metavar="DIR", help="Folder of the release (default STORE.release, or RUN.policy)."),
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Name of this version, such as v1.0.0.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the dataset private.")] = False,
    licences: options.Licences = None,
    max_rejects: Annotated[
        float,
        typer.Option(
            "--max-rejects", min=0, max=1, callback=options.finite, help="Largest share of rejected rows to accept."
        ),
    ] = 0.05,
    allow_paths: Annotated[
        bool, typer.Option("--allow-paths", help="Publish settings even if they hold paths of this machine.")
    ] = False,
    allow_templates: options.AllowTemplates = False,
    traces: Annotated[
        bool, typer.Option("--traces", help="Add kept rollouts as sessions, in the columns of the Hub's trace viewer.")
    ] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the folder, say what would change on the Hub, and send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before sending.")] = False,
    patience: options.Patience = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
) -> None:
    """Publish a store as a dataset on the Hugging Face Hub, or a run as a model: one commit, one tag, and a check.

    Needs HF_TOKEN, or `hf auth login`. The Hub gets all of the release or nothing. After an interruption, the same
    command goes on. Rehearse it first: stepsearch-data publish USER/NAME --tag v1.0.0 --dry-run
    """
    if not (yes or dry_run or sys.stdin.isatty()):
        raise ConfigError("publish asks before it sends, but stdin is not a terminal", "--yes, or rehearse: --dry-run")
    end_at_once()
    of_stores = {
        "--store": None if from_environment(context, "store") else store,
        "--license": licences,
        "--allow-paths": allow_paths,
        "--allow-templates": allow_templates,
        "--traces": traces,
    }
    of_runs = {"--best": best, "--evaluation": evaluations, "--data": data}
    refuse(of_stores if run else of_runs, f"{'with' if run else 'without'} --run")
    sending = Sending(private, message, dry_run, yes, quiet)
    if run:
        publish_run(
            repo, run, sending, output, patience, version=tag, best=best, data=data, evaluations=evaluations or ()
        )
        return
    from stepsearch_data.release.write import ReleaseSettings, write_release

    reporter, opened = Reporter(quiet=quiet), open_store(store, config).folder
    hub, revision = find_hub(repo, sending.patience(patience), reporter)
    if revision:
        raise ConfigError(f"{repo}: a release is named when it is published", f"--tag {revision}")
    from stepsearch_data.release.publish import check_account, check_tag

    check_tag(tag)
    settings = ReleaseSettings(
        name=hub.repo,
        version=tag,
        licences=options.licences_of(licences),
        max_rejects=max_rejects,
        allow_paths=allow_paths,
        allow_templates=allow_templates,
        traces=traces,
    )
    if not dry_run:
        check_account(hub, private=private)
    with reporter.stage("release") as meter:
        release = write_release(opened, output or beside(opened, ".release"), settings, meter)
    reporter.line(f"wrote {release.folder}")
    if (kept := opened.manifest().output("rollouts")) and kept.rows:
        reporter.line(f"note: rollouts go out with it, all that policies wrote and were shown: {kept.rows:,}")
    if send(hub, release, sending, reporter):
        _print_published(release, hub)


def pull(
    repo: options.Repo,
    store: options.Store = None,
    patience: options.Patience = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
) -> None:
    """Download the store of a release from the Hugging Face Hub, for `sql`, `audit`, `export`, `build` and the others.

    Every file is checked against the release's digests before the store appears. An interrupted pull goes on.

    Example: stepsearch-data pull USER/NAME@v1.0.0 --store store
    """
    end_at_once()
    from stepsearch_data.remote.objects import address

    reporter = Reporter(quiet=quiet)
    place = store or run_config(config).store
    if url := address(place):
        raise ConfigError(f"pull makes a folder, not {url}", f"pull it into one, then: aws s3 sync FOLDER {url}")
    hub, revision = find_hub(repo, patience, reporter)
    from stepsearch_data.release.pull import pull as fetch

    restored = fetch(hub, revision, place, reporter)
    if not quiet:
        _print_pulled(restored)


def verify(
    path: Annotated[
        Path,
        typer.Argument(help="A store or its URL, the folder of a release, or USER/NAME or USER/NAME@TAG on the Hub."),
    ] = Path("store"),
    patience: options.Patience = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Recompute every digest of a store or a release: which files are as recorded, changed, missing or unexpected.

    Exits with 1 if any file is not as recorded. On the Hub, large files are compared by the digests that it keeps.
    """
    from stepsearch_data.release.verify import verify as check
    from stepsearch_data.release.verify import verify_remote
    from stepsearch_data.remote.objects import address

    reporter = Reporter(quiet=quiet)
    with reporter.stage("verify") as meter:
        if address(path) or path.exists() or not _is_name(str(path)):
            report = check(path, meter)
        else:
            hub, revision = find_hub(str(path), patience, reporter)
            report = verify_remote(hub, revision, meter)
    if report.faults or not quiet:
        _print_verified(report, as_json=as_json)
    raise typer.Exit(StepSearchError.exit_code if report.faults else OK)


def _is_name(text: str) -> bool:
    """Tell whether this may be a dataset on the Hub."""
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith("/")


def _print_verified(report: Report, *, as_json: bool) -> None:
    """Print how every file stands: all of them as JSON, for people those that are not as recorded."""
    if as_json:
        print_json({**asdict(report), "ok": not report.faults})
        return
    counts = Counter(str(finding.state) for finding in report.findings)
    for fault in report.faults:
        say((f"{fault.state:<11}", "bold red"), fault.path)
    say(f"{report.kind} {report.where}: ", ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())))
    if counts["absent"]:
        say("absent: an index, which the next build makes again", style="dim")
    say(f"sha256 {report.digest}", style="dim")


def _print_published(release: Release, hub: Hub) -> None:
    """Print where the release is, and how it is loaded."""
    version = release.version
    revision = f', revision="{version}"' if version else ""
    print(f"{hub.url}/tree/{version or 'main'}")
    print(f'load_dataset("{hub.repo}", "{next(iter(release.record.configs))}"{revision})')


def _print_pulled(restored: Restored) -> None:
    """Print what a store from the Hub holds."""
    say(f"{restored.store.root}  sha256 {restored.digest}", "" if restored.fresh else "  (it was there already)")
    say(f"try: stepsearch-data audit{store_flag(restored.store)}")

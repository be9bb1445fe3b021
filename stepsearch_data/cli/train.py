"""`train` a policy, and `plot` how the training went."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from stepsearch_data.builds import engine_settings, run_config_over
from stepsearch_data.cli import options
from stepsearch_data.cli.common import OK, refuse
from stepsearch_data.cli.printing import grid, print_json, say, teller
from stepsearch_data.core.errors import ConfigError, StepSearchError

if TYPE_CHECKING:
    from stepsearch_data.core.intervals import Interval
    from stepsearch_data.evaluation.plot.curves import Comparison
    from stepsearch_data.indexes import Choice, Load
    from stepsearch_data.trainer.estimate import Estimate
    from stepsearch_data.trainer.recipe import Recipe

_STATES = {"good": "green", "look": "yellow", "bad": "bold red"}


def train(
    recipe: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="RECIPE", help="TOML file of a training; recipes/ has some."),
    ] = None,
    store: options.Store = None,
    output: Annotated[
        Path | None,
        options.output(metavar="DIR", help="Folder of the run (default runs/steppo, or runs/demo)."),
    ] = None,
    engine: options.OneEngine = None,
    index: options.Index = None,
    corpus: options.Corpus = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting of the recipe, or of an engine."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what memory and time a recipe needs, by arithmetic, and stop.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the output.")] = False,
    report_to: Annotated[
        str | None, typer.Option("--report-to", help="tensorboard, wandb, trackio or none (report_to).")
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub", metavar="USER/NAME", help="Publish the policy at the end, as publish --run does."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Would the training work? Try its parts and two small updates; keep nothing."),
    ] = False,
    demo: Annotated[
        Literal["quick", "full"] | None,
        typer.Option("--demo", help="Compare PPO with and without step rewards, on a made-up world with tiny models."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=1_024, help="Trainings of the demo at once (default: all cores)."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the demo's world (default 1).")] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train a policy on a store with StePPO: PPO with a reward for every search.

    Questions come from the store, documents from its engine or another. --demo needs neither, nor a GPU.

    Example: stepsearch-data train --config recipes/qwen2.5-3b.toml --store musique --engine http=http://localhost:8000
    """
    from stepsearch_data.indexes import Choice
    from stepsearch_data.trainer.recipe import load_recipe
    from stepsearch_data.trainer.start import require_torch, restore_interrupts
    from stepsearch_data.trainer.start import train as run

    if (recipe is None) == (demo is None):
        raise ConfigError("expected a recipe or the demo", "give one: --config RECIPE, or --demo quick")
    of_recipes = {
        "--index": index,
        "--corpus": corpus,
        "--report-to": report_to,
        "--resume": resume,
        "--dry-run": dry_run,
        "--check": check,
        "--push-to-hub": push_to_hub,
    }
    of_demo = {"--workers": workers, "--seed": seed}
    refuse(of_recipes if demo else of_demo, f"{'to' if demo else 'without'} --demo")
    prints = demo or dry_run or check
    refuse({} if prints else {"--json": as_json}, "without --demo, --dry-run or --check")
    of_trainings: dict[str, object] = {"--resume": resume, "--push-to-hub": push_to_hub}
    of_searches: dict[str, object] = {"--check": check, "--engine": engine, "--index": index, "--corpus": corpus}
    refuse(of_trainings | of_searches if dry_run else {}, "with --dry-run")
    refuse(of_trainings if check else {}, "with --check")
    told = teller(quiet)
    of_engines = [setting for setting in settings or [] if setting.startswith("engines.")]
    of_training = [setting for setting in settings or [] if setting not in of_engines]
    load = partial(run_config_over, None, [*engine_settings(engine), *of_engines])
    if demo:
        if of_training:
            raise ConfigError(f"--set {of_training[0]} means nothing to --demo", "leave it out, or write a recipe")
        folder, world = output or Path("runs/demo"), 1 if seed is None else seed
        with require_torch():
            from stepsearch_data.trainer.demo.experiment import demonstrate
        restore_interrupts()
        compared = demonstrate(folder, demo, load, workers or os.cpu_count() or 1, told, seed=world)
        _print_curves(compared, as_json=as_json)
        return
    flags = {"store": store, "output": output, "report_to": report_to}
    named = [f"{key}={json.dumps(str(value))}" for key, value in flags.items() if value is not None]
    chosen = load_recipe(recipe, [*named, *of_training])
    if dry_run:
        with require_torch():
            from stepsearch_data.trainer.estimate import estimate
        _print_estimate(estimate(chosen), chosen.hardware.memory_gb, as_json=as_json)
        return
    choice = Choice(corpus, chosen.store, index)
    if check:
        _check(chosen, choice, load, quiet=quiet, as_json=as_json)
    speaks = os.environ.get("RANK", "0") == "0"  # under accelerate, one process speaks for all
    pushing = push_to_hub if speaks else None
    with _pushing(pushing, chosen.output, quiet=quiet):
        last = run(chosen, choice, load, told, resume=resume, quiet=quiet)
        if speaks:
            typer.echo(last)


@contextmanager
def _pushing(repo: str | None, output: Path, *, quiet: bool) -> Iterator[None]:
    """Publish a run's policy where the block ends well; before the block, look whether that may be done.

    A repository that is not there yet becomes private. Raises PublishError, ConfigError.
    """
    if repo is None:
        yield
        return
    from stepsearch_data.cli.hub import Sending
    from stepsearch_data.cli.policy import check_push, publish_run

    check_push(repo, output, quiet=quiet)
    yield
    publish_run(repo, output, Sending(private=check_push(repo, output, quiet=quiet), quiet=quiet))


def _print_estimate(told: Estimate, memory_gb: float, *, as_json: bool) -> None:
    """Print what a recipe needs, part by part, and what was assumed."""
    if as_json:
        print_json({**asdict(told), "peak": told.peak, "hours": told.hours})
        return
    parts = [(part.name, part.phase, f"{part.size / 1e9:.1f}", part.counted) for part in told.parts]
    grid(
        ("memory of a GPU", "when", "GB", "counted"),
        [*parts, ("peak", "", f"{told.peak / 1e9:.1f}", f"of {memory_gb:g}")],
    )
    print()
    seconds = [(name, f"{value:,.0f} s") for name, value in told.seconds.items()]
    grid(("time of an update", ""), [*seconds, ("the whole training", f"{told.hours:,.0f} h")])
    print()
    for line in told.assumptions:
        typer.echo(line)


def _check(recipe: Recipe, choice: Choice, load: Load, *, quiet: bool, as_json: bool) -> NoReturn:
    """Print what a check finds as it goes. Exits with 1 where a training would not begin, or not learn."""
    from stepsearch_data.trainer.start import check

    findings = []
    for each in check(recipe, choice, load, quiet=quiet):
        findings.append(each)
        if not as_json:
            say((f"{each.state:<5}", _STATES[each.state]), f"{each.what:<11}", each.found)
            if each.hint:
                say(" " * 16, f"try: {each.hint}", style="dim")
    bad = any(each.state == "bad" for each in findings)
    if as_json:
        print_json({"ok": not bad, "findings": [asdict(each) for each in findings]})
    raise typer.Exit(StepSearchError.exit_code if bad else OK)


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or folders that hold some.")],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="What to draw, one panel each: eval_em (default), reward, kl..."),
    ] = None,
    x: Annotated[
        Literal["updates", "rollouts", "tokens"], typer.Option("--x", help="What the runs are compared by.")
    ] = "updates",
    output: Annotated[Path, options.output(help="File to draw: .png, .svg or .html.")] = Path("curves.png"),
    at: Annotated[
        list[float] | None,
        typer.Option(
            "--at",
            min=0,
            callback=options.finite,
            help="Budgets of the table (default: quarters of what all runs did).",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="VARIANT", help="What is subtracted (default: the first variant)."),
    ] = None,
    solved: Annotated[
        float, typer.Option("--solved", callback=options.finite, help="Held-out exact match of a solved run.")
    ] = 0.9,
    smooth: Annotated[
        int | None,
        typer.Option(
            "--smooth",
            min=1,
            max=1_000_000,
            help="Draw moving means of training metrics over so many updates (default: a twentieth of them).",
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw learning curves of training runs, seeds as a mean with a band, and print values and paired differences.

    Variants are drawn in the order of the folders given. Example: stepsearch-data plot runs/weak runs/strong -m eval_em
    """
    from stepsearch_data.evaluation.plot.chart import check_name, draw, write
    from stepsearch_data.evaluation.plot.curves import SOLVED_BY, Curves
    from stepsearch_data.evaluation.plot.runs import load_runs

    check_name(output)
    found, notes = load_runs(runs)
    curves = Curves(found, metric or [SOLVED_BY], x)
    compared = curves.compare(sorted(at) if at else curves.budgets(), against, solved)
    smooth = smooth or curves.smoothing()
    write(draw([*curves.bands(smooth)], x, smooth, against), output)
    _print_curves(compared, as_json=as_json)
    teller(quiet)(*notes, *curves.notes, f"wrote {output}")


def _print_curves(compared: Comparison, *, as_json: bool) -> None:
    """Print values of variants at budgets, and their paired differences."""
    if as_json:
        print_json(asdict(compared))
        return
    ends = ("mean", "95 % low", "high")
    grid(
        *_filled(
            ("metric", "start", compared.axis, "variant", "runs", *ends, "solved"),
            [(v.metric, v.start, round(v.at), v.variant, *astuple(v.value), _share(v.solved)) for v in compared.values],
        )
    )
    if compared.differences:
        print()
        pairs = [(d, f"{d.variant} − {d.against}") for d in compared.differences]
        grid(
            *_filled(
                ("metric", "start", compared.axis, "difference", "pairs", *ends),
                [(d.metric, d.start, round(d.at), named, *astuple(d.value)) for d, named in pairs],
            )
        )


def _filled(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Keep the columns that hold a value."""
    kept = [at for at in range(len(columns)) if any(row[at] not in {None, ""} for row in rows)]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]


def _share(found: Interval | None) -> str:
    return f"{round(found.mean * found.n)} of {found.n} ({found.low:.2f} to {found.high:.2f})" if found else ""

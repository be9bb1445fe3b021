"""Verbs of rewards and policies."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stepsearch_data.cli.common import (
    OK,
    QUARANTINED,
    end_at_once,
    merged_settings,
    run_config_over,
)
from stepsearch_data.cli.options import (
    ConcurrencyOption,
    ConfigOption,
    CorpusOption,
    IndexOption,
    JsonOption,
    OneEngineOption,
    Preset,
    QuietOption,
    SetOption,
    StoreOption,
    SwitchOption,
    engine_settings,
    finite,
    of_model,
)
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.sources import DATASETS

_of_rollouts = partial(typer.Option, rich_help_panel="Rollouts")


class Demo(StrEnum):
    """How much of the demo `train` runs."""

    quick = "quick"
    full = "full"


class Axis(StrEnum):
    """What `plot` compares runs by."""

    updates = "updates"
    rollouts = "rollouts"
    tokens = "tokens"


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
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=1_024, help="Processes (default: all cores).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, write no Parquet.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Score any model's rollouts with StepSearch's rewards: every component, for every round.

    Reads `response, target, search_keys, support_docs`, and the names that verl and Search-R1 have for them.
    """
    from stepsearch_data.cli import score as display
    from stepsearch_data.core.progress import Reporter
    from stepsearch_data.scoring.files import default_output, rejects_of, score_file
    from stepsearch_data.scoring.scorer import Scorer, configure

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
    engine: OneEngineOption = None,
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
        int | None,
        typer.Option("--workers", min=1, max=1_024, help="Trainings of the demo at once (default: all cores)."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the demo's world (default 1).")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a policy on a store with StePPO: PPO with a reward for every search.

    Questions come from the store, documents from its engine or another. --demo needs neither, nor a GPU.

    Example: stepsearch-data train --config recipes/qwen2.5-3b.toml --store musique --engine http=http://localhost:8000
    """
    from stepsearch_data.cli import score as display
    from stepsearch_data.indexes import Choice
    from stepsearch_data.trainer.recipe import load_recipe
    from stepsearch_data.trainer.start import hear_interrupts, needing_torch
    from stepsearch_data.trainer.start import train as run

    if (recipe is None) == (demo is None):
        raise ConfigError("expected a recipe or the demo", "name one: --config RECIPE, or --demo quick")
    of_recipes = {"--index": index, "--corpus": corpus, "--report-to": report_to, "--resume": resume}
    of_demo = {"--workers": workers, "--seed": seed, "--json": as_json}
    for flag in (name for name, value in (of_recipes if demo else of_demo).items() if value not in (None, False)):
        raise ConfigError(f"{flag} means nothing {'to' if demo else 'without'} --demo", "leave it out")
    say = partial(typer.echo, err=True) if not quiet else lambda _: None
    of_engines = [setting for setting in settings or [] if setting.startswith("engines.")]
    of_training = [setting for setting in settings or [] if setting not in of_engines]
    load = partial(run_config_over, None, [*engine_settings(engine), *of_engines])
    if demo:
        if of_training:
            raise ConfigError(f"--set {of_training[0]} means nothing to --demo", "leave it out, or write a recipe")
        folder, world = output or Path("runs/demo"), 1 if seed is None else seed
        with needing_torch():
            from stepsearch_data.trainer.demo.experiment import demonstrate
        hear_interrupts()
        compared = demonstrate(folder, demo.value, load, workers or os.cpu_count() or 1, say, seed=world)
        display.curves(compared, as_json=as_json)
        return
    flags = {"store": store, "output": output, "report_to": report_to}
    named = [f"{key}={json.dumps(str(value))}" for key, value in flags.items() if value is not None]
    chosen = load_recipe(recipe, [*named, *of_training])
    choice = Choice(corpus, chosen.store, index)
    last = run(chosen, choice, load, say, resume=resume, quiet=quiet)
    if os.environ.get("RANK", "0") == "0":  # under accelerate, one process speaks for all
        typer.echo(last)


def evaluate(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="A run of `train`, one of its checkpoints, or a language model of `transformers`."),
    ] = None,
    llm: Annotated[
        str | None, of_model("--llm", metavar="MODEL", help="Model of an OpenAI-compatible server, instead.")
    ] = None,
    base_url: Annotated[str | None, of_model("--base-url", help="The server (llm.base_url).")] = None,
    raw: Annotated[
        bool, of_model("--raw", help="Continue one text (/completions), as trained policies do, not a chat.")
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
    store: StoreOption = None,
    split: Annotated[str, typer.Option("--split", help="Split of the store to ask.")] = "validation",
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, max=1_000_000_000, help="Only the first N questions of each source."),
    ] = None,
    engine: OneEngineOption = None,
    index: IndexOption = None,
    corpus: CorpusOption = None,
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
        int | None, _of_rollouts("-k", min=1, max=100, help="Documents a search (default: as trained, or 3).")
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
    temperature: Annotated[
        float, _of_rollouts("--temperature", min=0, max=100, callback=finite, help="0 takes the likeliest token.")
    ] = 0.0,
    seed: Annotated[int, _of_rollouts("--seed", min=0, max=2**63 - 1, help="Of sampling.")] = 0,
    batch: Annotated[
        int | None,
        _of_rollouts(
            "--batch", min=1, max=1_000_000, help="Rollouts at once (default 64; of a server 4 × concurrency)."
        ),
    ] = None,
    max_concurrency: ConcurrencyOption = None,
    max_cost: Annotated[float | None, of_model("--max-cost", help="US dollars at most (llm.max_cost).")] = None,
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
        end_at_once()
    from stepsearch_data.cli import score as display
    from stepsearch_data.core.progress import Reporter
    from stepsearch_data.evaluation.evaluate import evaluate as run
    from stepsearch_data.evaluation.setup import Options
    from stepsearch_data.indexes import Choice

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
    load = partial(run_config_over, config, [*engine_settings(engine), *merged_settings(flags, settings)])
    report = run(options, load, Reporter(quiet=quiet))
    display.evaluation(report, output, as_json=as_json)
    raise typer.Exit(QUARANTINED if report.rejects or report.refused else OK)


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
        typer.Option(
            "--at", min=0, callback=finite, help="Budgets of the table (default: quarters of what all runs did)."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="VARIANT", help="What is subtracted (default: the first variant)."),
    ] = None,
    solved: Annotated[
        float, typer.Option("--solved", callback=finite, help="Held-out exact match of a solved run.")
    ] = 0.9,
    smooth: Annotated[
        int,
        typer.Option(
            "--smooth", min=1, max=1_000_000, help="Draw moving means of so many updates; the table has none."
        ),
    ] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw learning curves of training runs, seeds as a mean with a band, and print values and paired differences.

    Variants are drawn in the order of the folders given. Example: stepsearch-data plot runs/weak runs/strong -m eval_em
    """
    from stepsearch_data.cli import score as display
    from stepsearch_data.evaluation.plot.chart import check_name, draw, write
    from stepsearch_data.evaluation.plot.curves import SOLVED_BY, Curves
    from stepsearch_data.evaluation.plot.runs import load_runs

    check_name(output)
    found, notes = load_runs(runs)
    curves = Curves(found, metric or [SOLVED_BY], x.value)
    compared = curves.compare(sorted(at) if at else curves.budgets(), against, solved)
    write(draw(curves, smooth), output)
    display.curves(compared, as_json=as_json)
    if not quiet:
        for note in [*notes, *curves.notes, f"wrote {output}"]:
            typer.echo(note, err=True)

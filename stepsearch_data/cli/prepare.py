"""Commands that prepare a build: a run file, made-up questions, a look at the model's server."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from stepsearch_data.builds import run_config
from stepsearch_data.cli.options import ConfigOption, QuietOption, SetOption
from stepsearch_data.core.errors import ConfigError, StepSearchError


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

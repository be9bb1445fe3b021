"""Commands that prepare a build: write a run file or made-up questions, check a model's server."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from stepsearch_data.builds import run_config
from stepsearch_data.cli import options
from stepsearch_data.cli.printing import tell
from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.core.progress import Reporter


def init(
    path: Annotated[Path, typer.Argument(help="Run file to write.")] = Path("stepsearch.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented run file with every setting at its default."""
    from stepsearch_data.cli.run_file import run_file
    from stepsearch_data.stages import STAGES

    if path.exists() and not force:
        raise ConfigError(f"{path} exists already", "overwrite it with --force")
    try:
        path.write_text(run_file(STAGES), encoding="utf-8")
    except OSError as error:
        raise StepSearchError(f"cannot write {path}: {error.strerror}") from error
    tell(f"wrote {path}; build with: stepsearch-data build --config {shlex.quote(str(path))}")


def synth(
    output: Annotated[Path, options.output(help="File to write (.jsonl or .jsonl.gz).")],
    questions: Annotated[
        int, typer.Option("--questions", "-n", min=1, max=100_000_000, help="Number of questions.")
    ] = 200,
    paragraphs: Annotated[
        int | None,
        typer.Option(
            "--paragraphs",
            min=1,
            max=1_000_000_000,
            help="Distinct paragraphs of the world (default 5.6 per question).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=-(2**63), max=2**63 - 1, help="Same seed, same bytes.")] = 0,
    per_question: Annotated[
        int, typer.Option("--per-question", min=4, max=1_000, help="Paragraphs that come with a question.")
    ] = 20,
    sentences: Annotated[
        int,
        typer.Option(
            "--sentences",
            min=0,
            max=1_000,
            help="Sentences per paragraph: the fact, then filler. 0: only a short note.",
        ),
    ] = 4,
    quiet: options.Quiet = False,
) -> None:
    """Write made-up questions and paragraphs in MuSiQue's format: 2 to 4 hops, every shape of graph."""
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
        tell(f"wrote {written:,} questions; build with: stepsearch-data build --source {source}")


def doctor(
    llm: Annotated[str, typer.Option("--llm", metavar="MODEL", help="Model to try.")],
    config: options.Config = None,
    settings: options.Settings = None,
) -> None:
    """Check a model's key, server and structured output with one cheap call, and say what is wrong."""
    import asyncio

    from stepsearch_data.llm.doctor import examine

    for finding in asyncio.run(examine(run_config(config, settings).llm, llm)):
        typer.echo(finding)

"""The command line: its commands, and how it ends. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Callable
from copy import copy
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.models import CommandInfo

from stepsearch_data.cli import (
    build,
    compare,
    evaluate,
    look,
    mark,
    prepare,
    rollouts,
    score,
    search,
    share,
    show,
    status,
    train,
)
from stepsearch_data.cli.common import INTERRUPTED, OK
from stepsearch_data.cli.printing import tell
from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.core.terminal import readable
from stepsearch_data.core.version import __version__

COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Build a store": {
        "init": prepare.init,
        "synth": prepare.synth,
        "build": build.build,
        "explain": build.explain,
        "stages": status.stages,
        "status": status.status,
        "retry-failed": build.retry_failed,
        "rollouts": rollouts.rollouts,
        "doctor": prepare.doctor,
    },
    "Look into it": {
        "sql": look.sql,
        "schema": look.schema,
        "show": show.show,
        "audit": look.audit,
        "compare": compare.compare,
        "report": look.report,
        "view": look.view,
        "mark": mark.mark,
    },
    "Pass it on": {
        "export": share.export,
        "publish": share.publish,
        "pull": share.pull,
        "verify": share.verify,
    },
    "Search": {
        "index": search.index,
        "search": search.search,
        "serve": search.serve,
    },
    "Train": {
        "score": score.score,
        "train": train.train,
        "eval": evaluate.evaluate,
        "plot": train.plot,
    },
}
EPILOG = (
    "Data goes to stdout, logs and progress to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, "
    "3 done with rejected rows (in the table rejects, or in rejects.jsonl beside the output), 4 budget reached, "
    "5 the model's server or the Hub does not answer, 130 interrupted (the same command goes on)."
)


_COLLECT_AFTER = 50_000  # new objects: imports make many and leave none, and looking for some takes a tenth of `show`


class Cli(TyperGroup):
    """Turns errors into one line, a hint and an exit code."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit; see the exit codes above."""
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.TyperException as error:
            said, context = error.format_message(), getattr(error, "ctx", None)
            help_of = f"{context.command_path} --help" if context else ""
            # Without a command, typer has printed the help, and says nothing more.
            code = complain(ConfigError(said[:1].lower() + said[1:].rstrip("."), help_of)) if said else error.exit_code
        except StepSearchError as error:
            code = complain(error)
        except (typer.Abort, KeyboardInterrupt):
            tell("interrupted")
            code = INTERRUPTED
        except OSError as error:  # what a command does not know how to name, such as stdout on a full disk
            code = complain(
                StepSearchError(f"{error.filename2 or error.filename or 'output'}: {error.strerror or error}")
            )
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains about what is buffered
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Abort from error
        except BrokenPipeError:  # the reader of our stdout has gone, as `head` does
            os._exit(OK)  # at once: DuckDB, left in the middle of a result, would complain about it on its way out


def complain(error: StepSearchError) -> int:
    """Print an error as one line on stderr, and its hint as another, without keys and what URLs hold of them.

    Returns its exit code.
    """
    from stepsearch_data.remote.secrets import redact

    for what, text in (("error", error.message), ("hint", error.hint)):
        if text:
            tell(f"{what}: {readable(redact(text))}")
    return error.exit_code


app = typer.Typer(
    name="stepsearch-data",
    cls=Cli,
    help="Multi-hop questions in, step-by-step search trajectories out.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)


def _mend_streams() -> None:
    """Open streams that the caller closed, and let all of them print every character in some way."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, closefd=False))  # as Python's own: never closed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command line; the entry point of the console script."""
    gc.set_threshold(_COLLECT_AFTER)
    _mend_streams()
    called = copy(app)
    called.registered_commands = _needed(app.registered_commands, sys.argv[1:2])
    called()


def _needed(commands: list[CommandInfo], named: list[str]) -> list[CommandInfo]:
    """Return the command of that name, else all; without their options for the list of commands, which shows none.

    Reading the options of all takes as long as a query.
    """
    if named in ([], ["-h"], ["--help"]):
        return [_without_options(command) for command in commands]
    return [command for command in commands if command.name in named] or commands


def _without_options(command: CommandInfo) -> CommandInfo:
    def described() -> None:
        pass

    described.__doc__ = command.callback.__doc__
    bare = copy(command)
    bare.callback = described
    return bare

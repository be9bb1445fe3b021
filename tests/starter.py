"""Runs the command line in processes that are forked from one which has imported what commands import.

A start of Python costs a command one to three seconds of a processor, most of it for imports, and the tests run more
than a thousand commands. A forked process has streams, a folder, an environment and an end of its own all the same.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import pkgutil
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import stepsearch_data
from tests.bad.process import to_its_end

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300.0  # of the clock: a hang
# What Python and libraries read when they start: where these differ, a process starts from nothing.
EARLY = ("PYTHON", "LC_", "LANG", "LD_", "HF_", "OMP_", "NUMBA_", "POLARS_")
LIBRARIES = (
    *("numpy", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.compute", "polars", "duckdb", "numba", "bm25s"),
    *("pydantic", "aiohttp", "openai", "httpx2", "asyncio", "fsspec"),
    *("rich.progress", "typer.rich_utils", "typer._adapters"),
)
SLOWER = re.compile(r"stepsearch_data\.(__main__|release|trainer|evaluation|environments|cli\.hub|search\.kernel)\b")
WITH_TORCH = ("transformers", "peft", "trl", "stepsearch_data.trainer.launch", "stepsearch_data.evaluation.checkpoint")
TRAINING = {"train", "eval"}  # verbs that import torch
Command = tuple[list[str], dict[str, str], str, str]  # arguments, environment, folder, and where the streams lie
Done = subprocess.CompletedProcess[str]


def run(arguments: list[str], environment: dict[str, str], stdin: str) -> Done:
    """Run `stepsearch-data` with these arguments, as a user would: forked where that makes no difference."""
    if sys.platform == "linux":
        starter = _starter(torch=TRAINING & {*arguments[:1]} != set() and importlib.util.find_spec("torch") is not None)
        if _early(environment) == starter.early:
            return starter.run(arguments, environment, stdin)
    return fresh(arguments, environment, stdin)


def fresh(arguments: list[str], environment: dict[str, str], stdin: str) -> Done:
    """Run `stepsearch-data` in a process that starts from nothing."""
    command = [sys.executable, "-W", "error", "-m", "stepsearch_data", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
    )


class Starter:
    """A process that forks into commands, one at a time."""

    def __init__(self, *, torch: bool) -> None:
        self.early = _early(os.environ)
        self._lock = threading.Lock()
        self._asking, asked = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", __name__, str(asked.fileno()), *(WITH_TORCH if torch else ())],
            cwd=ROOT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads would start when numpy is imported
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[asked.fileno()],
            process_group=0,
        )
        asked.close()

    def run(self, arguments: list[str], environment: dict[str, str], stdin: str) -> Done:
        """Run a command to its end. Raises TimeoutExpired where it hangs."""
        with self._lock, tempfile.TemporaryDirectory() as streams:
            Path(streams, "0").write_text(stdin)
            self._asking.send((arguments, environment, str(Path.cwd()), streams))
            if not self._asking.poll(SECONDS):
                self.end()
                _starter.cache_clear()
                raise subprocess.TimeoutExpired(arguments, SECONDS)
            code = self._asking.recv()
            return Done(arguments, code, *(Path(streams, name).read_text() for name in "12"))

    def end(self) -> None:
        """End the process, and a command that still runs."""
        self._asking.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@cache
def _starter(*, torch: bool) -> Starter:
    starter = Starter(torch=torch)
    atexit.register(starter.end)
    return starter


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(EARLY)}


def _serve(asked: Connection, modules: list[str]) -> None:
    """Fork into each command that is asked for, until nobody can ask any more."""
    ours = (module.name for module in pkgutil.walk_packages(stepsearch_data.__path__, "stepsearch_data."))
    for name in (*LIBRARIES, *(name for name in ours if not SLOWER.match(name)), *modules):
        with suppress(ModuleNotFoundError):  # of an extra
            importlib.import_module(name)
    with suppress(EOFError):
        while True:
            command = asked.recv()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # threads of allocators, which do survive a fork
                process = os.fork()
            if not process:
                asked.close()
                _become(command)
            asked.send(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def _become(command: Command) -> None:
    """Be the process of a command, down to its end."""
    arguments, environment, folder, streams = command
    code = 70
    try:
        for number, how in enumerate((os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)):
            os.dup2(os.open(f"{streams}/{number}", how | os.O_APPEND, 0o600), number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["", *arguments]
        code = to_its_end(partial(runpy.run_module, "stepsearch_data", run_name="__main__", alter_sys=True))
    except BaseException:  # noqa: BLE001 - nothing may go on as the one that forks
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), sys.argv[2:])

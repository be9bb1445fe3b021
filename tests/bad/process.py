"""One command of the line in a process of its own, within limits, its streams in files.

It costs no start of Python: the process is forked from one that has imported all that the verbs import and has started
no thread. `alone` starts a fresh `python -m stepsearch_data` nevertheless.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

import stepsearch_data
from tests.bad.case import Case

NOWHERE = "http://127.0.0.1:9/v1"
KEY = "sk-a-key-that-nobody-may-see"
SECONDS = 60.0  # of the clock: a hang
PROCESSOR_SECONDS = 40
MOST_MEMORY = 6 << 30  # bytes that can be written to: what wants more ends in a MemoryError
_NOBODY = 65_534
_FAILED = 70


@dataclass(frozen=True)
class Done:
    """How a process ended, in seconds and bytes of memory; `signal` is 0 where none ended it."""

    code: int
    signal: int
    hung: bool
    seconds: float
    memory: int
    out: bytes
    err: str


def import_all() -> None:
    """Import what the verbs do, so that no process has to; what needs torch stays out."""
    for module in pkgutil.walk_packages(stepsearch_data.__path__, "stepsearch_data."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)


def be_nobody(folder: Path) -> None:
    """Give root's rights and the folder to `nobody`, where Python can be read without them.

    A bad input must not harm the machine, and permissions are to count.
    """
    if os.geteuid() == 0 and wait(forked(lambda: _give_up_rights() or _cannot_read())) == 0:
        os.chown(folder, _NOBODY, _NOBODY)
        _give_up_rights()


def _give_up_rights() -> int:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    return 0


def _cannot_read() -> int:
    return int(not all(os.access(file, os.R_OK) for file in (os.__file__, stepsearch_data.__file__, pydantic.__file__)))


def forked(work: Callable[[], int]) -> int:
    """Start a process that does the work and ends with its exit code; its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = _FAILED
    try:
        os.setsid()
        code = work()
    except BaseException:  # noqa: BLE001 - nothing may go on as the parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code of a process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def attempt(case: Case, folder: Path, *, alone: bool = False) -> Done:
    """Run the case's command to its end, or to the limits."""
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    folder.with_suffix(".in").write_bytes(case.stdin)
    begun = time.monotonic()
    pid = forked(lambda: _become(case, folder, alone=alone))
    hung = told = False
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if case.stop and not told and case.stop in _read(err):
            os.kill(pid, signal.SIGTERM)
            told = True
        if time.monotonic() - begun > SECONDS and not hung:
            os.killpg(pid, signal.SIGKILL)
            hung = True
        time.sleep(0.005)
    with suppress(ProcessLookupError):  # what it has started
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    printed = out.read_bytes() if out.exists() else b""
    seconds = time.monotonic() - begun
    return Done(code, max(0, -code), hung, seconds, used.ru_maxrss * 1024, printed, _read(err))


def _read(path: Path) -> str:
    return path.read_text("utf-8", "backslashreplace") if path.exists() else ""


def _become(case: Case, folder: Path, *, alone: bool) -> int:
    """The command in this process, its streams, limits and environment as the case wants them."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    streams = [os.open(folder.with_suffix(".in"), os.O_RDONLY), _stdout(case.stdout, folder)]
    for number, opened in enumerate([*streams, os.open(folder.with_suffix(".err"), append, 0o600)]):
        os.dup2(opened, number)
    if case.stdout == "closed":
        os.close(1)
    os.closerange(3, 256)
    os.chdir(folder)
    _set_environment(case, folder)
    for limit, value in (
        (resource.RLIMIT_DATA, MOST_MEMORY),
        (resource.RLIMIT_CPU, PROCESSOR_SECONDS),
        (resource.RLIMIT_FSIZE, case.longest),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if alone:
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        os.execv(sys.executable, [sys.executable, "-W", "error", "-m", "stepsearch_data", *case.argv])
    return _command_line(case.argv)


def _stdout(name: str, folder: Path) -> int:
    if name == "broken":
        reading, writing = os.pipe()
        os.close(reading)
        return writing
    file = name if name.startswith("/") else folder.with_suffix(".out")
    return os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)


def _set_environment(case: Case, folder: Path) -> None:
    libraries = os.environ.get("LD_LIBRARY_PATH")  # where Python's own may lie
    os.environ.clear()
    os.environ |= {"PATH": "/usr/bin:/bin", "HOME": str(folder.with_suffix(".home")), "COLUMNS": "200"}
    os.environ |= {"LC_ALL": "C.UTF-8", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": NOWHERE}
    os.environ |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": KEY, **case.env}
    os.environ |= {"LD_LIBRARY_PATH": libraries} if libraries else {}


def _command_line(arguments: list[str]) -> int:
    """What the interpreter does with the entry point of the console script, down to its end."""
    from stepsearch_data.cli import main

    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        setattr(sys, name, _opened(number, mode))
    sys.argv = ["stepsearch-data", *arguments]
    return to_its_end(main)


def to_its_end(main: Callable[[], object]) -> int:
    """Run a program and what the interpreter does at its end; its exit code."""
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        print("Exception ignored in stdout:", error, file=sys.stderr)
    return code


def _opened(number: int, mode: str) -> Any:
    try:
        return os.fdopen(number, mode, closefd=False)
    except OSError:  # closed
        return None

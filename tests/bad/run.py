"""Tries bad inputs, each in a process of its own, and prints a JSON line about each that was taken badly.

    python -W error -m tests.bad.run --seed 7 --count 2000 --part 0/2 --keep /tmp/bad

A process costs no start of Python: it is forked from this one, which has imported all that the verbs import and
has started no thread. One in `ALONE` is a fresh `python -m stepsearch_data` nevertheless. What root starts goes on as
`nobody` where that can read Python: then permissions count, and paths outside of the case's folder are tried, too.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import json
import os
import pickle
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pydantic

import stepsearch_data
from tests.bad.base import make_base
from tests.bad.case import Case
from tests.bad.commands import NOWHERE
from tests.bad.families import make_case
from tests.bad.judge import judge
from tests.tree import tree

ALONE = 40
SECONDS = 60.0  # of the clock; a hang
PROCESSOR_SECONDS = 40
MOST_MEMORY = 6 << 30  # bytes that can be written to: what wants more ends in a MemoryError
LARGEST_FILE = 256 << 20
KEY = "sk-a-key-that-nobody-may-see"
_NOBODY = 65_534


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


def forked(work: Callable[[], int]) -> int:
    """Start a process that does the work and ends with its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def attempt(case: Case, folder: Path, *, alone: bool) -> Done:
    """Run the case's command to its end, or to the limits."""
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    (folder.with_suffix(".in")).write_bytes(case.stdin)
    begun = time.monotonic()
    pid = forked(lambda: _become(case, folder, out, err, alone=alone))
    told = hung = False
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if case.stop and not told and case.stop in _read(err):
            os.kill(pid, signal.SIGTERM)
            told = True
        if time.monotonic() - begun > SECONDS and not hung:
            hung = True
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.005)
    _end_group(pid)
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -ended_by
    printed = out.read_bytes() if out.exists() else b""
    return Done(code, ended_by, hung, time.monotonic() - begun, used.ru_maxrss * 1024, printed, _read(err))


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _read(path: Path) -> str:
    return path.read_text("utf-8", "backslashreplace") if path.exists() else ""


def _become(case: Case, folder: Path, out: Path, err: Path, *, alone: bool) -> int:
    """The command in this process, its streams and limits as the case wants them."""
    streams = [(os.open(folder.with_suffix(".in"), os.O_RDONLY), 0), (_stdout(case, out), 1)]
    streams.append((os.open(err, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2))
    for opened, at in streams:
        os.dup2(opened, at)
    if case.stdout == "closed":
        os.close(1)
    os.closerange(3, 256)
    os.chdir(folder)
    home = folder.with_suffix(".home")
    libraries = os.environ.get("LD_LIBRARY_PATH", "")  # where Python's own may lie
    os.environ.clear()
    os.environ |= {"PATH": "/usr/bin:/bin", "HOME": str(home), "COLUMNS": "200", "OPENAI_API_KEY": KEY}
    os.environ |= {
        "OPENAI_BASE_URL": NOWHERE,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_TOKEN": KEY,
        "LC_ALL": "C.UTF-8",
    }
    os.environ |= {"LD_LIBRARY_PATH": libraries} if libraries else {}
    os.environ |= case.env
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = [os.fsencode(argument).decode(errors="surrogateescape") for argument in case.argv]
    if alone:
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        os.execv(sys.executable, [sys.executable, "-W", "error", "-m", "stepsearch_data", *arguments])
    return _command_line(arguments)


def _stdout(case: Case, out: Path) -> int:
    if case.stdout == "broken":
        reading, writing = os.pipe()
        os.close(reading)
        return writing
    return os.open(case.stdout if case.stdout.startswith("/") else out, os.O_WRONLY | os.O_CREAT, 0o600)


def _command_line(arguments: list[str]) -> int:
    """What the interpreter does with the entry point of the console script, down to its end."""
    from stepsearch_data.cli import main

    sys.stdin = open(0, closefd=False) if _is_open(0) else None  # type: ignore[assignment]
    sys.stdout = open(1, "w", closefd=False) if _is_open(1) else None  # type: ignore[assignment]
    sys.stderr = open(2, "w", closefd=False)
    sys.argv = ["stepsearch-data", *arguments]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        print("Exception ignored in stdout:", error, file=sys.stderr)
        code = 120
    return code


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _import_all() -> None:
    """Import what the verbs do, so that no process has to; what needs torch stays out."""
    for module in pkgutil.walk_packages(stepsearch_data.__path__, "stepsearch_data."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ImportError:
            continue


def _be_nobody(folder: Path) -> None:
    """Give up root's rights, where Python and the package can be read without them."""

    def give_up() -> int:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        return 1 - all(os.access(file, os.R_OK) for file in (os.__file__, stepsearch_data.__file__, pydantic.__file__))

    if os.geteuid() == 0 and wait(forked(give_up)) == 0:
        os.chown(folder, _NOBODY, _NOBODY)
        give_up()


def _make_base(folder: Path) -> None:
    """In a process of its own: threads that it starts must not be forked."""

    def cli(argv: list[str]) -> int:
        scratch = folder.with_name("making")
        scratch.mkdir(exist_ok=True)
        done = attempt(Case(argv), scratch, alone=False)
        if done.code not in {0, 3} or "Traceback" in done.err:
            print(argv, done.code, done.err, file=sys.stderr)
        return done.code

    def work() -> int:
        make_base(folder, cli)
        return 0

    folder.mkdir()
    if wait(forked(work)):
        raise SystemExit("the good commands fail")


def _make(seed: int, number: int, base: Path, folder: Path) -> tuple[str, Case]:
    """The case, made by a process of its own, for the same reason."""
    kept = folder.with_suffix(".case")

    def work() -> int:
        folder.mkdir()
        kept.write_bytes(pickle.dumps(make_case(seed, number, base, folder)))
        return 0

    if wait(forked(work)):
        raise SystemExit(f"case {seed}/{number} cannot be made")
    made: tuple[str, Case] = pickle.loads(kept.read_bytes())
    return made


def _clear(folder: Path) -> None:
    for path in (folder, *folder.parent.glob(f"{folder.name}.*")):
        if path.is_dir() and not path.is_symlink():
            for inner, _, _ in os.walk(path):
                Path(inner).chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--only", type=int, action="append")
    parser.add_argument("--family")
    parser.add_argument("--keep", type=Path, help="folder that keeps what failed")
    parser.add_argument("-v", action="store_true")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    os.umask(0o077)
    top = Path(tempfile.mkdtemp(prefix="bad-"))
    _be_nobody(top)
    _import_all()
    base = top / "base"
    _make_base(base)
    before = tree(base)
    failed = 0
    tried = 0
    for number in asked.only or range(part, asked.count, parts):
        folder = top / str(number)
        family, case = _make(asked.seed, number, base, folder)
        if asked.family and family != asked.family:
            _clear(folder)
            continue
        tried += 1
        done = attempt(case, folder, alone=number % ALONE == 0)
        faults = judge(case, done, folder, KEY)
        if tree(base) != before:
            faults.append("a file of somebody else's was changed")
            before = tree(base)
        if faults or asked.v:
            failed += bool(faults)
            told = {"case": f"{asked.seed}/{number}", "family": family, "faults": faults, "argv": case.argv}
            told |= {"env": case.env, "stdout": case.stdout, "code": done.code, "seconds": round(done.seconds, 2)}
            told |= {"memory": done.memory >> 20, "stderr": done.err[-3_000:]}
            print(json.dumps(told), flush=True)
        if faults and asked.keep:
            shutil.copytree(top, asked.keep / f"{asked.seed}-{number}", symlinks=True, ignore=lambda _, n: set())
        _clear(folder)
    print(json.dumps({"tried": tried, "failed": failed}), flush=True)
    _clear(top)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

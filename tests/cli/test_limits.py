"""A query ends at its limits of time and memory, at Ctrl-C and with its command, whatever DuckDB is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLEEPS = "SELECT sleep_ms(60000)"  # no interrupt ends it
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes in /proc")


def start(sql: str, store: Path, *options: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "stepsearch_data", "sql", sql, "--store", str(store)]
    return subprocess.Popen([*command, *map(str, options)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def child_of(process: subprocess.Popen[str]) -> int:
    """The process that asks DuckDB, once it has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.01)
    return int(found[0])


def test_a_query_that_cannot_be_interrupted_ends_in_time(sample_store: Path) -> None:
    process = start(SLEEPS, sample_store, "--timeout", "0.5")
    child = child_of(process)
    begin = time.monotonic()
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - begin < 15  # most of which a busy machine takes to start it
    assert (process.returncode, told.splitlines()[0]) == (1, "error: the query took longer than 0.5 s")
    assert not Path(f"/proc/{child}").exists()


def test_one_huge_value_ends_at_the_limit_of_memory(sample_store: Path) -> None:
    """It would have 4 GB, twice at times; a busy machine looks late."""
    process = start("SELECT repeat('x', 4000000000)", sample_store, "--memory", "0.25")
    with process:
        told = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert told.splitlines()[0] == "error: the query took more than 0.25 GiB of memory"
    assert "--memory" in told.splitlines()[1]
    assert usage.ru_maxrss < 2 << 20  # KiB, of the largest of its processes


def test_a_sort_that_needs_more_memory_is_told_so(sample_store: Path) -> None:
    process = start("SELECT list(range) FROM range(100000000)", sample_store, "--memory", "0.25")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.splitlines()[0] in {
        "error: the query needs more memory than it may take",
        "error: the query took more than 0.25 GiB of memory",
    }


@pytest.mark.parametrize(
    ("number", "to_child", "code", "words"),
    [
        (signal.SIGINT, False, 130, "interrupted"),
        (signal.SIGINT, True, 130, "interrupted"),
        (signal.SIGTERM, False, 143, ""),
        (signal.SIGSEGV, True, 1, "error: the query's process was ended by SIGSEGV"),
    ],
)
def test_both_processes_end_at_once(
    number: int, to_child: bool, code: int, words: str, sample_store: Path, tmp_path: Path
) -> None:
    process = start("FROM range(100000000000)", sample_store, "-f", "csv", "-o", tmp_path / "out.csv")
    child = child_of(process)
    while not list(tmp_path.iterdir()):  # the query runs
        time.sleep(0.01)
    begin = time.monotonic()
    os.kill(child if to_child else process.pid, number)
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - begin < 2
    assert (process.returncode, told.strip()) == (code, words)
    assert not Path(f"/proc/{child}").exists()
    assert not list(tmp_path.iterdir())


def test_a_query_without_end_is_refused_on_stdin(sample_store: Path) -> None:
    with open("/dev/zero", "rb") as zeros:
        command = [sys.executable, "-m", "stepsearch_data", "sql", "-", "--store", str(sample_store)]
        done = subprocess.run(command, stdin=zeros, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: the query on stdin has more than 10,000,000 bytes\n")

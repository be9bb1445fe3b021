"""Workers: results in order, what a function raises, the end of a worker, and the end of the process that has them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from stepsearch_data.core.arrow import Sent
from stepsearch_data.core.errors import StoreError
from stepsearch_data.executors import INLINE, Executor, WorkerError, open_executor
from stepsearch_data.executors.processes import Processes

SCRIPT = """
import sys, time
from pathlib import Path
from tests.executors.test_processes import wait
from stepsearch_data.executors.processes import Processes
list(Processes(2).map(wait, [Path(sys.argv[1]) / str(number) for number in range(4)]))
"""


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    if number == 3:
        raise StoreError("no", "try yes")
    return number


def kill_once(mark: Path, number: int) -> int:
    """Kill the worker at the third item, the first time."""
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def kill_while_sending(mark: Path, size: int) -> bytes:
    """Kill the worker, the first time, when it has begun to send its result, which takes a tenth of a second."""

    def kill() -> None:
        time.sleep(0.01)  # the other thread goes on when the result is pickled,
        time.sleep(0.01)  # and then when it is being written
        os.kill(os.getpid(), signal.SIGKILL)

    result = bytes(size)
    if not mark.exists():
        mark.touch()
        threading.Thread(target=kill).start()
    return result


def kill_always(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def lacks_memory(number: int) -> int:
    raise MemoryError


def process_of(_: int) -> int:
    return os.getpid()


def imported_for_arrays(_: int) -> set[str]:
    """The modules that Arrow imports when it makes its first array."""
    before = set(sys.modules)
    pa.array(["text"])
    return set(sys.modules) - before


def wait(mark: Path) -> None:
    mark.write_text(str(os.getpid()))
    time.sleep(60)


def is_there(process: int) -> bool:
    """Tell whether a process runs."""
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(params=["inline", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    opened = open_executor(request.param, 2)
    assert type(opened) is (Processes if request.param == "processes" else type(INLINE))
    yield opened
    opened.close()


def test_results_keep_the_order_of_the_items(executor: Executor) -> None:
    assert list(executor.map(square, iter(range(20)))) == [number * number for number in range(20)]
    assert list(executor.map(square, [])) == []


def check_faults(executor: Executor) -> None:
    """What the function raises comes after the results of the items before."""
    results = executor.map(fail, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StoreError, match="no") as caught:
        next(results)
    assert caught.value.hint == "try yes"


def test_what_a_function_raises_is_raised_in_its_turn(executor: Executor) -> None:
    check_faults(executor)


def check_copies(executor: Executor) -> None:
    """Results come in order, and a fault in its turn; the function is there for the next items."""
    copies = executor.copies(fail)
    assert list(copies.map([0, 1, 2])) == [0, 1, 2]
    results = copies.map(range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StoreError, match="no"):
        next(results)
    assert list(copies.map(iter([5, 4]))) == [5, 4]
    copies.close()


def check_parts(executor: Executor, folder: Path) -> None:
    """Every function gets every item; what ends its worker is done again."""
    parts = executor.parts([partial(times, factor) for factor in (2, 3, 5)])
    assert [parts.ask(number) for number in (1, 2)] == [[2, 3, 5], [4, 6, 10]]
    parts.close()
    if executor is not INLINE:
        parts = executor.parts([partial(kill_once, folder / "mark"), partial(times, 2)])
        assert [parts.ask(number) for number in (1, 3, 4)] == [[1, 2], [3, 6], [4, 8]]
        parts.close()
        assert (folder / "mark").exists()


def times(factor: int, number: int) -> int:
    return factor * number


def test_copies(executor: Executor) -> None:
    check_copies(executor)


def test_parts(executor: Executor, tmp_path: Path) -> None:
    check_parts(executor, tmp_path)


def test_items_are_taken_a_bounded_number_ahead(executor: Executor) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1_000):
            taken.append(number)
            yield number

    results = executor.map(square, items())
    next(results)
    assert len(taken) <= 1 + 3 * executor.workers


def test_one_worker_needs_no_process() -> None:
    assert open_executor("processes", 1) is INLINE


@pytest.mark.skipif(sys.platform == "darwin", reason="reads /proc")
def test_the_work_of_a_killed_worker_is_done_again(tmp_path: Path) -> None:
    assert list(Processes(2).map(partial(kill_once, tmp_path / "mark"), range(9))) == list(range(9))
    assert (tmp_path / "mark").exists()


def test_the_work_of_a_worker_that_is_killed_while_it_sends_is_done_again(tmp_path: Path) -> None:
    """Other processes hold the pipe open, so the executor alone would wait for the rest for ever."""
    results = Processes(2).map(partial(kill_while_sending, tmp_path / "mark"), [300_000_000])
    assert [len(result) for result in results] == [300_000_000]


def test_work_ends_within_a_result() -> None:
    """No worker sends the rest of the result that the executor has begun to take."""
    for _ in range(5):
        results = Processes(2).map(bytes, [30_000_000] * 9)
        assert len(next(results)) == 30_000_000
        results.close()  # type: ignore[attr-defined]  # a generator, as Iterator says not


def test_work_that_always_kills_its_worker_ends_with_one_line() -> None:
    with pytest.raises(WorkerError, match="killed 3 times at the same work") as caught:
        list(Processes(2).map(kill_always, range(9)))
    assert "--workers 1" in caught.value.hint


def test_a_worker_without_memory_ends_the_work_with_one_line() -> None:
    with pytest.raises(WorkerError, match="a worker process has run out of memory") as caught:
        list(Processes(2).map(lacks_memory, range(9)))
    assert "--workers 1" in caught.value.hint


@pytest.mark.skipif(sys.platform == "darwin", reason="reads /proc")
def test_workers_import_nothing_that_the_server_could_have_imported_for_all() -> None:
    assert list(Processes(2).map(imported_for_arrays, range(2))) == [set(), set()]


def test_workers_end_with_their_executor() -> None:
    executor = Processes(2)
    results = executor.map(process_of, range(99))
    worker = next(results)
    assert is_there(worker)
    executor.close()
    assert not is_there(worker)
    results.close()  # type: ignore[attr-defined]  # a generator, as Iterator says not


@pytest.mark.skipif(sys.platform == "darwin", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_has_them(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stderr=subprocess.DEVNULL) as driver:
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        workers = [int(path.read_text() or 0) for path in tmp_path.iterdir()]
        driver.send_signal(number)
        driver.wait(timeout=10)
    until = time.monotonic() + 10
    while any(map(is_there, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(workers) == 2
    assert not any(map(is_there, workers))


def test_a_part_of_a_table_is_sent_without_the_rest() -> None:
    whole = pa.table({"number": range(100_000), "text": [None, *map(str, range(99_999))]})
    sent = pickle.dumps(Sent(whole.slice(50, 10)))
    assert len(sent) < 2_000
    assert pickle.loads(sent).table.to_pylist() == whole.slice(50, 10).to_pylist()

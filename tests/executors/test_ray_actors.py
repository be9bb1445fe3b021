"""Functions that are kept in actors of a Ray cluster of two nodes: their order, their faults, and a lost node."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stepsearch_data.executors import Executor, WorkerError, open_executor
from tests.executors.test_processes import check_copies, check_parts, kill_always, kill_once, process_of
from tests.ray_nodes import Nodes, nodes

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    pytest.importorskip("ray", exc_type=ImportError)
    with nodes(2) as opened:
        yield opened


@pytest.fixture(scope="module")
def executor(cluster: Nodes) -> Iterator[Executor]:
    opened = open_executor("ray", 8, address=cluster.address)
    yield opened
    opened.close()


def test_copies(executor: Executor) -> None:
    check_copies(executor)


def test_parts(executor: Executor, tmp_path: Path) -> None:
    check_parts(executor, tmp_path)


def test_the_item_of_a_killed_copy_is_done_by_another(executor: Executor, tmp_path: Path) -> None:
    copies = executor.copies(partial(kill_once, tmp_path / "mark"))
    assert list(copies.map(range(9))) == list(range(9))
    assert list(copies.map(range(9))) == list(range(9))
    copies.close()
    assert (tmp_path / "mark").exists()


def test_an_item_that_always_kills_its_copy_ends_with_one_line(executor: Executor) -> None:
    copies = executor.copies(kill_always)
    with pytest.raises(WorkerError, match="failed 4 times: ActorDiedError") as caught:
        list(copies.map(range(2)))
    assert "\n" not in caught.value.message
    copies.close()


def test_copies_go_on_where_a_node_is_lost(executor: Executor, cluster: Nodes) -> None:
    copies = executor.copies(process_of)
    results = copies.map(range(200))
    first = [next(results) for _ in range(20)]
    cluster.lose_node(random.Random(20))
    rest = list(results)
    copies.close()
    cluster.mend(2)
    assert len(first) + len(rest) == 200

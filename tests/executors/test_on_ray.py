"""Work on a Ray cluster of two nodes, which this machine plays. Needs the extra `ray`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.executors import Executor, WorkerError, open_executor
from tests.executors.test_processes import check_faults, kill_always, kill_once, square

pytestmark = pytest.mark.long


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="needs the package ray") as caught:
        open_executor("ray", 2)
    assert caught.value.hint == "pip install 'stepsearch-data[ray]'"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", exc_type=ImportError)
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


@pytest.fixture(scope="module")
def executor(cluster: Any) -> Iterator[Executor]:
    opened = open_executor("ray", 8, address=cluster.address)
    yield opened
    opened.close()


def test_results_keep_the_order_of_the_items(executor: Executor) -> None:
    assert list(executor.map(square, iter(range(20)))) == [number * number for number in range(20)]
    assert executor.workers == 2


def test_what_a_function_raises_is_raised_in_its_turn(executor: Executor) -> None:
    check_faults(executor)


def test_the_work_of_a_killed_worker_is_done_again(executor: Executor, tmp_path: Path) -> None:
    assert list(executor.map(partial(kill_once, tmp_path / "mark"), range(9))) == list(range(9))
    assert (tmp_path / "mark").exists()


def test_work_that_always_kills_its_worker_ends_with_one_line(executor: Executor) -> None:
    with pytest.raises(WorkerError, match="failed 4 times: WorkerCrashedError") as caught:
        list(executor.map(kill_always, range(2)))
    assert "\n" not in caught.value.message


def test_a_cluster_that_gives_no_core_is_said(cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from contextlib import closing
        from stepsearch_data.executors import on_ray, ray_cluster
        from stepsearch_data.executors.executor import WorkerError
        from tests.executors.test_processes import wait
        from pathlib import Path
        ray_cluster.PATIENCE = 2.0
        try:
            with closing(on_ray.OnRay(2, sys.argv[1])) as executor:
                list(executor.map(wait, [Path(sys.argv[2])]))
        except WorkerError as error:
            print(error.message)
    """
    command = [sys.executable, "-W", "error", "-c", code, cluster.address, str(tmp_path / "mark")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ}).stdout
    assert said.startswith("the Ray cluster has done no work for 2 s: it has 2 cores")


def test_a_cluster_that_is_not_there_is_said() -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    code = """if True:
        from contextlib import closing
        from stepsearch_data.executors.executor import WorkerError
        from stepsearch_data.executors.on_ray import OnRay
        try:
            with closing(OnRay(2, "127.0.0.1:1")) as executor:
                list(executor.map(abs, [1]))
        except WorkerError as error:
            print(error.message)
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot join the Ray cluster 127.0.0.1:1")


def test_a_cluster_of_its_own_has_as_many_cores_as_workers_are_wanted() -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    code = """if True:
        from contextlib import closing
        from stepsearch_data.executors.on_ray import OnRay
        with closing(OnRay(3, "local")) as executor:
            assert list(executor.map(abs, [-1, 2])) == [1, 2]
            cores = executor.workers
        print(cores)
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"

"""What a Ray cluster may lack: memory, room for objects, cores, a worker, a node, and the build itself."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_cli
from tests.llm_server import LlmServer
from tests.ray_nodes import Nodes, finish, nodes, start, strike
from tests.tree import tree

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform == "darwin", reason="reads /proc")]
SMALLEST_STORE = 80 << 20  # bytes of an object store: Ray wants 75 MiB

CALL = """if True:
    import sys
    from contextlib import closing
    from functools import partial
    from pathlib import Path
    from stepsearch_data.core.errors import StepSearchError
    from stepsearch_data.executors import on_ray, ray_cluster
    from tests.executors import test_processes, test_ray_faults
    ray_cluster.PATIENCE, ray_cluster.SAY_EVERY = {patience}, 1.0
    try:
        with closing(on_ray.OnRay(2, sys.argv[1], lambda text: print(text, file=sys.__stdout__))) as executor:
            said = list(executor.map({function}, {items}))
    except StepSearchError as error:
        said = error.message + "\\n" + error.hint
    print(said)
"""


def call(cluster: Nodes, function: str, items: str = "range(2)", patience: float = 60.0, **env: str) -> list[str]:
    """Map a function in a process of its own; return the lines that it prints."""
    code = CALL.format(function=function, items=items, patience=patience)
    command = [sys.executable, "-W", "error", "-c", code, cluster.address]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env={**os.environ, **env})
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def many_bytes(number: int) -> bytes:
    return bytes([number]) * (30 << 20)


def size(data: bytes) -> tuple[int, int]:
    return len(data), data[-1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    pytest.importorskip("ray", exc_type=ImportError)
    with nodes(2) as opened:
        yield opened


def test_a_worker_without_memory_ends_the_build_with_one_line(cluster: Nodes) -> None:
    said = call(cluster, "test_processes.lacks_memory")
    assert said[-2] == "a worker of the Ray cluster has run out of memory"
    assert "ray start --num-cpus" in said[-1]


def test_a_worker_that_the_memory_monitor_kills_again_and_again_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.0001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with nodes(1) as small:
        said = call(small, "partial(test_processes.wait, Path('/dev/null'))", RAY_task_oom_retries="1")
    assert said[-2] == "a worker of the Ray cluster has run out of memory"


def test_objects_that_do_not_fit_into_memory_are_spilled() -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    with nodes(2, object_store_memory=SMALLEST_STORE) as small:
        items = "[test_ray_faults.many_bytes(n) for n in range(9)]"
        said = call(small, "test_ray_faults.size", items)
    assert said[-1:] == [str([(30 << 20, number) for number in range(9)])]


def test_a_cluster_whose_cores_another_job_has_is_waited_for_and_then_given_up(cluster: Nodes, tmp_path: Path) -> None:
    marks = f"[Path({str(tmp_path)!r}) / str(number) for number in range(2)]"
    other = threading.Thread(target=call, args=(cluster, "test_processes.wait", marks), daemon=True)
    other.start()
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    said = call(cluster, "abs", patience=2.0)
    assert said[-2] == "the Ray cluster has done no work for 2 s: it has 2 cores, 0 free"
    assert said[-1].startswith("see: ray status; the same command goes on")


def test_a_cluster_without_cores_is_said_while_it_is_waited_for() -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    with nodes(0) as empty:
        said = call(empty, "abs", patience=3.0)
    assert said[0].startswith("waiting for the Ray cluster: it has 0 cores, 0 free; ")
    assert said[-2] == "the Ray cluster has done no work for 3 s: it has 0 cores, 0 free"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that is large enough for workers."""
    path = tmp_path_factory.mktemp("world") / "world.jsonl"
    assert run_cli("synth", "--quiet", "-n", "1200", "--paragraphs", "6000", "-o", path).returncode == 0
    return path


@pytest.fixture(scope="module")
def files(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a build that needs no worker."""
    store = tmp_path_factory.mktemp("inline") / "store"
    done = run_cli("build", "--quiet", "--executor", "inline", "--store", store, "--source", f"musique={world}")
    assert done.returncode == 0
    return tree(store, "log")


def kill(build: subprocess.Popen[str]) -> bool:
    build.kill()
    return True


def queries(request: dict[str, Any]) -> str:
    """Queries that depend only on what is asked."""
    asked = hashlib.sha256(json.dumps(request["messages"]).encode()).hexdigest()
    return json.dumps({"queries": [f"query q{asked[:8]} {number}" for number in range(4)]})


def test_a_node_that_is_lost_while_a_model_is_asked_costs_no_call_twice(
    cluster: Nodes, world: Path, tmp_path: Path
) -> None:
    asked = ("--source", f"musique={world}", "--set", "queries.llm=mock")
    here, there = tmp_path / "here", tmp_path / "there"
    with LlmServer(queries, delay=0.02) as server:
        env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none"}
        replay = "llm.replay=" + str(tmp_path / "here.sqlite")
        inline = ("build", "--quiet", "--executor", "inline", "--store", here, *asked, "--set", replay)
        assert run_cli(*inline, env=env).returncode == 0
        calls = len(server.requests)
        build = start(there, cluster.address, *asked, XDG_CACHE_HOME=str(tmp_path), **env)
        lose = partial(cluster.lose_node, random.Random(20))
        assert strike(build, there, 0, lambda: len(server.requests) > 1.5 * calls and lose())
        assert len(server.requests) < 2 * calls
        assert finish(build) == (0, "")
    cluster.mend(2)
    assert len(server.requests) == 2 * calls
    assert tree(there, "log") == tree(here, "log")


@pytest.mark.parametrize("fault", ["worker", "node", "build"])
def test_what_is_killed_changes_no_byte(
    fault: str, cluster: Nodes, world: Path, files: dict[str, str], tmp_path: Path
) -> None:
    """`benchmarks/ray_faults.py` does the same at many moments, with two and with four nodes."""
    store, chance = tmp_path / "store", random.Random(20)
    begin = partial(start, store, cluster.address, "--source", f"musique={world}")
    build = begin()
    if fault == "worker":
        assert strike(build, store, 2, partial(cluster.kill_worker, chance))
    elif fault == "node":
        assert strike(build, store, 2, partial(cluster.lose_node, chance))
    elif fault == "build":
        assert strike(build, store, 2, partial(kill, build))
        assert finish(build)[0] == -signal.SIGKILL
        build = begin()
    assert finish(build) == (0, "")
    cluster.mend(2)
    assert tree(store, "log") == files

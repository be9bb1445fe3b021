"""What a build on a Ray cluster does when workers, nodes and the build itself are killed.

Plays clusters of several nodes on this machine, each node with one core. At random moments of a build, kills with
SIGKILL a worker, all processes of a node, or the build, which is then started again. Each build must end with the files
of one that worked in its own process. With `--model` a model of a server on loopback writes the queries, and the moment
is one of that stage: after a random share of its calls. No call may be paid twice but, where the build is killed, those
in flight and those that the replay cache was about to write.

    python benchmarks/ray_faults.py [--nodes 2 4] [--times 10] [--questions 2000] [--model] [--seed 20]

Needs the extra `ray`. Exits with 1 where a file differs, or a call was paid twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.llm_server import LlmServer
from tests.ray_nodes import Nodes, finish, nodes, start, strike
from tests.tree import tree

CLI = (sys.executable, "-m", "stepsearch_data")
PARAGRAPHS_A_QUESTION = 5.6
IN_FLIGHT, WINDOW = 64, 64  # calls at once, and replies that one commit of the replay cache holds
DELAY = 0.02  # seconds of a call: the model's stage lasts some seconds
FAULTS = ("worker", "node", "driver")


def answer(request: dict[str, Any]) -> str:
    """Write four queries that depend only on what is asked."""
    asked = hashlib.sha256(json.dumps(request["messages"]).encode()).hexdigest()
    return json.dumps({"queries": [f"query q{asked[:8]} {number}" for number in range(4)]})


class Builds:
    """Builds of one world, on a cluster or not."""

    def __init__(self, folder: Path, questions: int, server: LlmServer | None) -> None:
        self._folder, self._server = folder, server
        world = folder / "world.jsonl.gz"
        size = ["--questions", str(questions), "--paragraphs", str(round(questions * PARAGRAPHS_A_QUESTION))]
        subprocess.run([*CLI, "synth", "--quiet", *size, "--output", world], check=True)
        model = ["--set", "queries.llm=mock", "--max-concurrency", str(IN_FLIGHT)] if server else []
        self._options = ["--source", f"musique={world}", *model]
        self._env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none"} if server else {}
        self._number = 0
        done, self.files, self.seconds = self.run(None, "", lambda: False)
        if done:
            sys.exit(f"the build without a cluster failed: {done}")
        self._calls = len(server.requests) if server else 0

    def run(self, at: float | None, address: str, fault: Callable[[], bool]) -> tuple[str, dict[str, str], float]:
        """Build once, with a fault at a share of its usual time or calls. Return errors, the files and the seconds.

        A build that ends before that is done again, with an earlier fault.
        """
        self._number += 1
        store = self._folder / f"store{self._number}"
        env = {**self._env, "XDG_CACHE_HOME": str(self._folder / f"cache{self._number}")}
        where = [] if address else ["--executor", "inline"]  # the last one given counts
        begin = partial(start, store, address, *self._options, *where, **env)
        began = time.perf_counter()
        build = begin()
        strikes = partial(driver, build) if fault is driver else fault
        struck = at is None or self._strike(build, store, at, strikes)
        code, errors = finish(build)
        if fault is driver and at is not None:
            code, errors = finish(begin())
        seconds = time.perf_counter() - began
        files = tree(store, "log") if not code else {}
        shutil.rmtree(store, ignore_errors=True)
        shutil.rmtree(env["XDG_CACHE_HOME"], ignore_errors=True)
        if not struck:
            assert at is not None
            self.paid_twice()  # its calls do not count
            return self.run(0.8 * at, address, fault)
        self.seconds = seconds if at is None else self.seconds
        return errors, files, seconds

    def _strike(self, build: subprocess.Popen[str], store: Path, at: float, fault: Callable[[], bool]) -> bool:
        """Do the fault at this share of the usual calls of a model, or else of the usual time."""
        server = self._server
        if not server:
            return strike(build, store, at * self.seconds, fault)
        return strike(build, store, 0, lambda: len(server.requests) >= at * self._calls and fault())

    def paid_twice(self) -> int:
        """Return how many requests the server got more than once since the last call."""
        if not self._server:
            return 0
        seen = Counter(json.dumps(request) for request in self._server.requests)
        self._server.requests.clear()
        return seen.total() - len(seen)


def driver(build: subprocess.Popen[str] | None = None) -> bool:
    """Kill the build."""
    if build:
        build.kill()
    return True


def trial(builds: Builds, cluster: Nodes, count: int, fault: str, times: int, chance: random.Random) -> bool:
    """Do one kind of fault several times; print a line. Return whether all files were the same."""
    faults = {
        "worker": lambda: cluster.kill_worker(chance),
        "node": lambda: cluster.lose_node(chance),
        "driver": driver,
    }
    seconds, same, twice = [], 0, []
    for part in range(times):
        errors, files, took = builds.run((part + chance.random()) / times, cluster.address, faults[fault])
        cluster.mend(count)
        seconds.append(took)
        same += files == builds.files
        twice.append(builds.paid_twice())
        if files != builds.files:
            print(f"   {errors.strip() or 'other files: ' + ', '.join(_other(builds.files, files))}", flush=True)
    most = IN_FLIGHT + WINDOW if fault == "driver" else 0
    paid = f"; calls paid twice: {max(twice)} at most (allowed {most})" if any(twice) else ""
    print(
        f"{count} nodes, {fault:<7} killed {times} times: same files {same} times;"
        f" median {statistics.median(seconds):.1f} s (max {max(seconds):.1f}){paid}",
        flush=True,
    )
    return same == times and max(twice) <= most


def _other(one: dict[str, str], two: dict[str, str]) -> list[str]:
    return [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)][:5]


def main() -> None:
    """Run the trials and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=(2, 4))
    parser.add_argument("--times", type=int, default=10, help="how often each is killed")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--questions", type=int, default=2_000)
    parser.add_argument("--model", action="store_true", help="let a model, of a server on loopback, write the queries")
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    chance, good = random.Random(options.seed), True
    with tempfile.TemporaryDirectory() as folder, LlmServer(answer, DELAY) as server:
        builds = Builds(Path(folder), options.questions, server if options.model else None)
        builds.paid_twice()
        print(f"{options.questions:,} questions in one process: {builds.seconds:.1f} s", flush=True)
        for count in options.nodes:
            with nodes(count) as cluster:
                errors, files, seconds = builds.run(None, cluster.address, driver)
                calls = builds.paid_twice()
                print(f"{count} nodes, untouched: {seconds:.1f} s, same files: {files == builds.files}", flush=True)
                print(errors, end="", flush=True)
                good &= files == builds.files and not calls
                for fault in options.faults:
                    good &= trial(builds, cluster, count, fault, options.times, chance)
    sys.exit(not good)


if __name__ == "__main__":
    main()

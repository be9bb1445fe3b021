"""How fast, how small and how careful the calls to a language model are.

A mock server with a fixed latency runs in a process of its own, and so does every client. Ours is
paired with an ideal one (64 aiohttp workers that keep and check nothing), in alternation; medians
are printed beside the bars:

    python benchmarks/llm.py [--runs 5] [--only a,e] [--peer-python peers/bin/python] [--before CHECKOUT]

    a  requests per second at 100 and 500 ms   d  wall time of the whole command
    b  the same, 5 % of the calls take 1 s     e  a cap of 200 requests a second
    c  memory of 20,000 calls at 20 ms         f  kill -9 half-way, then the same command again

distilabel and curator join in (a), each where `--peer-python` (repeatable) can import it; with `--before`, another
checkout of this project joins in (a) and (b).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLI = (sys.executable, "-m", "stepsearch_data")
PROMPT = ROOT / "stepsearch_data" / "stages" / "prompts" / "queries.txt"
PEERS = ("distilabel", "curator")
IN_FLIGHT = 64
CALLS = 2_000
WINDOW = 64  # replies that one commit of the replay cache holds
QUESTIONS = 690  # of a synthetic world: about 2,000 hops, a call each
MORE = 10
HANGS = 120.0  # seconds
SHARE, SHARE_LATE, SHARE_SLOW, MEMORY, COMMAND, CAPPED, REFUSED = 0.80, 0.97, 0.88, 150, 1.5, 1.4, 0.05  # the bars
MIB = 1 << 20
SCHEMA = {
    "type": "object",
    "properties": {"queries": {"type": "array", "items": {"type": "string"}}},
    "required": ["queries"],
    "additionalProperties": False,
}

# -- Clients: each is prepared, with its imports, then makes its calls and returns how many were answered ----

Calls = Callable[[], int]


def system_part() -> str:
    """Return the system part of the stage `queries`."""
    return PROMPT.read_text(encoding="utf-8").partition("=== user ===")[0].strip()


def user_part(number: int) -> str:
    """Make the user part of a call, as long as those of the stage `queries`."""
    known = "- Who directed the film The Silent Harbour? → Maria Lindqvist\n" * 2
    question = f"Question: In which year was the school number {number} founded that the director went to?\n\n"
    return f"{question}Found so far:\n{known}\nSub-question to search for: When was school {number} founded?"


def ideal(url: str, calls: int, _folder: Path) -> Calls:
    """Call with only a pool of workers."""
    import aiohttp
    import orjson

    system = {"role": "system", "content": system_part()}
    headers = {"Content-Type": "application/json"}
    schema = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}}
    todo = iter(range(calls))

    async def work(session: aiohttp.ClientSession) -> int:
        answered = 0
        for number in todo:
            messages = [system, {"role": "user", "content": user_part(number)}]
            body = {"model": "mock", "messages": messages, "max_tokens": 1024, "response_format": schema}
            async with session.post(f"{url}/chat/completions", data=orjson.dumps(body), headers=headers) as response:
                answered += bool(orjson.loads(await response.read())["choices"][0]["message"]["content"])
        return answered

    async def call() -> int:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
            return sum(await asyncio.gather(*(work(session) for _ in range(IN_FLIGHT))))

    return lambda: asyncio.run(call())


def ours(url: str, calls: int, folder: Path) -> Calls:
    """Call through the layer that the stages use, with its replay cache and its log."""
    from functools import partial

    import openai  # noqa: F401 - imported here, so that no client's time includes it

    import stepsearch_data.remote.transport  # noqa: F401
    from stepsearch_data.core.ordered import ordered
    from stepsearch_data.llm.chat import Message, Reply, Request
    from stepsearch_data.llm.service import Llm
    from stepsearch_data.llm.settings import LlmSettings
    from stepsearch_data.pipeline.store import Store

    settings = LlmSettings(base_url=url, replay=folder / "replay.sqlite", max_concurrency=IN_FLIGHT)
    system = Message("system", system_part())

    async def call() -> int:
        llm = Llm(settings, "queries", record=partial(Store(folder).log, "llm_calls"))

        async def ask(number: int) -> Reply:
            return await llm.complete(Request("mock", (system, Message("user", user_part(number))), SCHEMA))

        answered = 0
        try:
            async for reply in ordered(ask, range(calls), IN_FLIGHT):
                answered += bool(reply.text)
        finally:
            await llm.close()
        return answered

    return lambda: asyncio.run(call())


def distilabel(url: str, calls: int, folder: Path) -> Calls:
    """Call through a pipeline of distilabel, in batches of 64."""
    os.environ["XDG_CACHE_HOME"] = os.environ["HF_HOME"] = str(folder)
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps.tasks import TextGeneration

    rows = [{"instruction": user_part(number)} for number in range(calls)]
    llm = OpenAILLM(model="mock", base_url=url, api_key="none")
    with Pipeline(name="bench", cache_dir=folder) as pipeline:
        TextGeneration(llm=llm, system_prompt=system_part(), input_batch_size=IN_FLIGHT)

    return lambda: len(pipeline.run(dataset=rows, use_cache=False)["default"]["train"])


def curator(url: str, calls: int, folder: Path) -> Calls:
    """Call through the library curator, with limits too high to matter."""
    os.environ.update(CURATOR_CACHE_DIR=str(folder), TELEMETRY_ENABLED="0", OPENAI_API_KEY="none", HF_HOME=str(folder))
    import tiktoken

    class Bytes:
        """Replaces tiktoken's tables, which are downloaded."""

        encode = staticmethod(str.encode)

    tiktoken.get_encoding = tiktoken.encoding_for_model = lambda *_: Bytes()
    from bespokelabs import curator as library

    limits = {"max_requests_per_minute": 10**6, "max_tokens_per_minute": 10**9, "max_concurrent_requests": IN_FLIGHT}
    llm = library.LLM(model_name="mock", backend="openai", backend_params={"base_url": url, **limits})
    system = {"role": "system", "content": system_part()}
    rows = [[system, {"role": "user", "content": user_part(number)}] for number in range(calls)]

    return lambda: len(llm(rows).dataset)


# -- Processes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A client's process: wall seconds in total; wall and processor seconds of its calls; peak resident MiB."""

    wall: float
    calling: float
    processor: float
    peak: float


class Server:
    """The mock server in its own process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}/v1"

    def stats(self) -> dict[str, int]:
        """Return the numbers of calls so far, of calls with a repeated prompt, and of refused calls."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/stats", timeout=10) as reply:
            return dict(json.load(reply))


@contextmanager
def serving(**options: Any) -> Iterator[Server]:
    """Run a mock server with these options until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(free.getsockname()[1])
        port = free.getsockname()[1]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
    switches = [f"--{name}" for name, value in options.items() if value is True]
    command = [sys.executable, "-m", "tests.llm_server", f"--port={port}", *flags, *switches]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        for _ in range(200):
            try:
                server.stats()
                break
            except OSError:
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait()


def finish(process: subprocess.Popen[bytes], start: float, output: Path) -> Run:
    """Wait for a process and read its output. End the benchmark when it fails or hangs."""
    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    _, status, usage = os.wait4(process.pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    process.returncode = status
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"{process.args!r} failed with status {status}: {output.read_text()[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    told = dict(line.split(maxsplit=1) for line in output.read_text().splitlines() if line.count(" ") == 1)
    processor = float(told.get("processor", "nan"))
    return Run(wall, float(told.get("calling", wall)), processor, usage.ru_maxrss * unit / MIB)


def launch(command: list[Any], output: Path, root: Path = ROOT, **environment: str) -> subprocess.Popen[bytes]:
    """Start a process of a checkout that writes to `output`."""
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    with output.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": path, **environment}
        )


def client(name: str, server: Server, calls: int, python: str = sys.executable, root: Path = ROOT) -> Run:
    """Run one client of a checkout in its own process, in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        start = time.perf_counter()
        command = [python, root / "benchmarks" / "llm.py", "--client", name, server.url, str(calls), folder]
        return finish(launch(command, output, root), start, output)


def run_client(name: str, url: str, calls: str, folder: str) -> None:
    """Run a client and print its seconds; the main function of its process."""
    clients = {"ideal": ideal, "ours": ours, "distilabel": distilabel, "curator": curator}
    call = clients[name](url, int(calls), Path(folder))
    start, used = time.perf_counter(), time.process_time()
    answered = call()
    print(f"calling {time.perf_counter() - start}\nprocessor {time.process_time() - used}")
    if answered != int(calls):
        sys.exit(f"{answered} of {calls} calls were answered")


class Command:
    """Runs `stepsearch-data build --stage queries` over a store that has its hops."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._world, self._ready, self._store = folder / "world.jsonl", folder / "ready", folder / "store"
        total = QUESTIONS + MORE
        self._cli("synth", "--quiet", "--questions", str(total), "--paragraphs", str(6 * total), "-o", self._world)
        self.calls = self._decompose(self._ready, QUESTIONS)

    def reset(self) -> None:
        """Make a fresh store without a replay cache."""
        for path in (self._store, self._folder / "cache"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self._ready, self._store)

    def start(self, server: Server, *flags: str) -> tuple[subprocess.Popen[bytes], float, Path]:
        """Start the stage. Return the arguments of `finish`."""
        output = self._folder / "output"
        command = [*CLI, "build", "--store", self._store, "--stage", "queries", "--set", "queries.llm=mock", *flags]
        start = time.perf_counter()
        process = launch(command, output, OPENAI_BASE_URL=server.url, XDG_CACHE_HOME=str(self._folder / "cache"))
        return process, start, output

    def grow(self) -> int:
        """Add some questions to the store. Return the number of their hops."""
        return self._decompose(self._store, QUESTIONS + MORE) - self.calls

    def _decompose(self, store: Path, questions: int) -> int:
        source = ("--source", f"musique={self._world}", "--limit", str(questions))
        self._cli("build", "--quiet", "--store", store, "--to", "decompose", *source)
        outputs = json.loads((store / "manifest.json").read_text())["stages"]["decompose"]["outputs"]
        return int(outputs["sub_questions"]["rows"])

    def _cli(self, *arguments: Any) -> None:
        subprocess.run(
            [*CLI, *arguments], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )


# -- Measurements -------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """What all measurements share."""

    runs: int
    peers: list[str]
    before: Path | None = None
    failed: bool = False

    def line(self, name: str, bar: str, figure: str, *, good: bool, more: str = "") -> None:
        """Print a line of the table."""
        self.failed |= not good
        print(f"{name:<44} {bar:>12} {figure:>14}  {'ok  ' if good else 'FAIL'}  {more}", flush=True)

    def pairs(self, ours: Callable[[], Run], reference: Callable[[], Run]) -> tuple[list[Run], list[Run]]:
        """Run both in alternation, so that other load on the machine slows both."""
        both = [(ours(), reference()) for _ in range(self.runs)]
        return [run for run, _ in both], [run for _, run in both]


def rate(runs: list[Run], calls: int) -> float:
    """Return the median of requests per second, from the first call to the last."""
    return calls / statistics.median(run.calling for run in runs)


def cost(runs: list[Run]) -> float:
    """Return the median milliseconds of processor time per call."""
    return 1000 * statistics.median(run.processor for run in runs) / CALLS


def share(mine: list[Run], reference: list[Run]) -> float:
    """Return the median over the pairs of our requests per second as a share of the reference's."""
    return statistics.median(b.calling / a.calling for a, b in zip(mine, reference, strict=True))


def throughput(bench: Bench, name: str, bar: float, **options: Any) -> None:
    """Measure requests per second as a share of the ideal's (a and b)."""
    with serving(**options) as server:
        clients = {"ideal": partial(client, "ideal"), "ours": partial(client, "ours")}
        if bench.before:
            clients["before"] = partial(client, "ours", root=bench.before)
        rounds = [{name: run(server, CALLS) for name, run in clients.items()} for _ in range(bench.runs)]
        runs = {name: [each[name] for each in rounds] for name in clients}
        best, found = runs["ideal"], share(runs["ours"], runs["ideal"])
        told = [f"{rate(runs[name], CALLS):,.0f} ({cost(runs[name]):.2f} ms)" for name in ("ours", "ideal")]
        more = "{} of the ideal's {} requests/s (processor time per call)".format(*told)
        bench.line(name, f">= {bar:.0%}", f"{found:.1%}", good=found >= bar, more=more)
        if bench.before:
            print(
                f"   {'before':<41} {'':>12} {share(runs['before'], best):>14.1%}        "
                f"{rate(runs['before'], CALLS):,.0f} ({cost(runs['before']):.2f} ms)",
                flush=True,
            )
        for python in bench.peers if options == {"delay": 0.1} else ():
            for peer in filter(lambda peer: has(python, peer), PEERS):
                run = client(peer, server, CALLS, python)
                print(
                    f"   {peer:<41} {'':>12} {share([run], best[:1]):>14.1%}        "
                    f"{rate([run], CALLS):,.0f} requests/s, {run.wall:.1f} s in all, {run.peak:.0f} MiB"
                )


def has(python: str, peer: str) -> bool:
    """Tell whether an interpreter can import a peer."""
    module = {"curator": "bespokelabs"}.get(peer, peer)
    found = f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({module!r}))"
    return subprocess.run([python, "-c", found], check=False).returncode == 0


def a(bench: Bench) -> None:
    """Measure throughput at a fixed latency."""
    throughput(bench, f"a  {CALLS:,} calls at 100 ms", SHARE, delay=0.1)
    throughput(bench, f"a  {CALLS:,} calls at 500 ms", SHARE_LATE, delay=0.5)


def b(bench: Bench) -> None:
    """Check that a few slow calls delay no other."""
    throughput(bench, "b  5 % of them take 1 s", SHARE_SLOW, delay=0.1, slow_share=0.05, slow=1.0)


def c(bench: Bench) -> None:
    """Check that memory does not grow with the number of calls."""
    calls = 10 * CALLS
    with serving(delay=0.02) as server:
        small = client("ours", server, CALLS).peak
        mine, best = bench.pairs(lambda: client("ours", server, calls), lambda: client("ideal", server, calls))
    peak = statistics.median(run.peak for run in mine)
    more = f"{rate(mine, calls):,.0f} of {rate(best, calls):,.0f} requests/s; {small:.0f} MiB after {CALLS:,} calls"
    bench.line(
        f"c  peak memory of {calls:,} calls at 20 ms",
        f"< {MEMORY} MiB",
        f"{peak:.0f} MiB",
        good=peak < MEMORY,
        more=more,
    )


def d(bench: Bench) -> None:
    """Measure the whole command as a user runs it."""
    with tempfile.TemporaryDirectory() as folder, serving(delay=0.1) as server:
        command = Command(Path(folder))

        def build() -> Run:
            command.reset()
            return finish(*command.start(server))

        mine, best = bench.pairs(build, lambda: client("ideal", server, command.calls))
    ratio = statistics.median(run.wall / other.wall for run, other in zip(mine, best, strict=True))
    walls = [statistics.median(run.wall for run in runs) for runs in (mine, best)]
    more = f"{walls[0]:.1f} s to {walls[1]:.1f} s, {max(run.peak for run in mine):.0f} MiB"
    bench.line(
        f"d  whole command, {command.calls:,} calls",
        f"<= {COMMAND} x",
        f"{ratio:.2f} x",
        good=ratio <= COMMAND,
        more=more,
    )


def e(bench: Bench) -> None:
    """Measure a server that refuses calls above its cap. Runs differ, as its windows begin with the clock's seconds."""
    cap, calls = 200, 1_000
    servers: dict[str, dict[str, Any]] = {
        "window, Retry-After 1": {"retry_after": 1},
        "window, Retry-After 2": {"retry_after": 2},
        "bucket, Retry-After 1": {"retry_after": 1, "bucket": True},
    }
    for kind, options in servers.items():
        runs, refused = [], []
        for _ in range(bench.runs):
            with serving(delay=0.1, cap=cap, **options) as server:
                runs.append(client("ours", server, calls))
                refused.append(server.stats()["throttled"] / calls)
        ratio = statistics.median(run.calling for run in runs) * cap / calls
        worst = max(run.calling for run in runs) * cap / calls
        typical = statistics.median(refused)
        more = f"worst {worst:.2f} x; refused {typical:.1%} (bar < {REFUSED:.0%}), worst {max(refused):.1%}"
        good = ratio <= CAPPED and typical < REFUSED
        bench.line(f"e  {cap} requests/s, {kind}", f"<= {CAPPED} x", f"{ratio:.2f} x", good=good, more=more)


def f(bench: Bench) -> None:
    """Check that paid replies survive kill -9."""
    with tempfile.TemporaryDirectory() as folder:
        command = Command(Path(folder))
        twice = []
        for _ in range(bench.runs):
            command.reset()
            with serving(delay=0.1) as server:
                killed, _, _ = command.start(server)
                while killed.poll() is None and server.stats()["calls"] < command.calls // 2:
                    time.sleep(0.02)
                killed.kill()
                killed.wait()
                finish(*command.start(server))
                stats = server.stats()
                assert stats["calls"] - stats["repeated"] == command.calls, "calls are missing"
                twice.append(stats["repeated"])
                before = stats["calls"]
                finish(*command.start(server, "--force"))
                again = server.stats()["calls"] - before
                new = command.grow()
                finish(*command.start(server))
                added = server.stats()["calls"] - before - again
    bar = IN_FLIGHT + WINDOW
    bench.line(
        "f  calls sent twice after kill -9", f"<= {bar}", f"{max(twice)}", good=max(twice) <= bar, more=f"all {twice}"
    )
    bench.line("f  calls for the same input again", "0", f"{again}", good=again == 0)
    bench.line(f"f  calls for {MORE} more questions", f"{new}", f"{added}", good=added == new)


def main() -> None:
    """Run the measurements and print the table."""
    measurements = {"a": a, "b": b, "c": c, "d": d, "e": e, "f": f}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; medians are printed")
    parser.add_argument("--only", default=",".join(measurements), help="measurements, with commas")
    parser.add_argument("--peer-python", action="append", default=[], help="interpreter with distilabel or curator")
    parser.add_argument("--before", type=Path, help="another checkout, to compare")
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        run_client(*options.client)
        return
    bench = Bench(options.runs, [*options.peer_python, sys.executable], options.before)
    print(f"{'':<44} {'bar':>12} {'median':>14}")
    for name in options.only.split(","):
        measurements[name](bench)
    sys.exit(bench.failed)


if __name__ == "__main__":
    main()

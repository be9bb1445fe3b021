"""Search engines: that bm25 is right and fast, what size costs, what `serve` loses to HTTP, and how engines vote.

    python benchmarks/search.py exact KIND=PATH …    bm25 against rank-bm25: scores on real paragraphs, speed on 100,000
    python benchmarks/search.py pruned               bm25 against bm25s, which adds up everything: a million passages
    python benchmarks/search.py scale                a million passages with bm25, five million with tantivy
    python benchmarks/search.py serve                64 clients for a minute against the engine in its own process
    python benchmarks/search.py vote KIND=PATH …     M = 3 on real questions: bm25, chargram, another variant over http

Passages are made up: 40 to 110 words of a Zipfian vocabulary of 600,000.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np

from stepsearch_data.core.progress import Meter, Reporter
from stepsearch_data.core.text import tokens
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.pipeline.runner import Runner
from stepsearch_data.schemas.tables import PASSAGES, SUB_QUESTIONS
from stepsearch_data.search import sparse
from stepsearch_data.search.bm25 import Bm25
from stepsearch_data.search.documents import Document, Documents, write_documents
from stepsearch_data.search.kinds import choose
from stepsearch_data.stages import STAGES

CLI = (sys.executable, "-m", "stepsearch_data")
VOCABULARY = 600_000
MIB = 1 << 20
UNIT = 1 if sys.platform == "darwin" else 1024


def zipfian(passages: int, seed: int = 0) -> Iterator[Document]:
    """Yield this many synthetic passages."""
    draw = np.random.default_rng(seed)
    share = np.cumsum(1 / np.arange(2, VOCABULARY + 2) ** 1.07)
    for start in range(0, passages, 10_000):
        lengths = draw.integers(40, 110, min(10_000, passages - start))
        words = np.searchsorted(share / share[-1], draw.random(int(lengths.sum())))
        for number, part in enumerate(np.split(words, np.cumsum(lengths)[:-1]), start):
            text = " ".join(f"w{word:x}" for word in part.tolist())
            title, _, rest = text.partition(" ")
            yield Document(str(number), title, rest)


def write_corpus(path: Path, passages: int) -> Path:
    """Write a corpus in Search-R1's format."""
    with open(path, "w") as file:
        for document in zipfian(passages):
            contents = f'"{document.title}"\n{document.text}'
            file.write(json.dumps({"id": document.id, "contents": contents}) + "\n")
    return path


def made_up_queries(number: int, seed: int = 1) -> list[str]:
    """Make queries of five words that follow one another in a passage."""
    draw = random.Random(seed)
    texts = [document.text.split() for document in zipfian(10_000, seed=2)]
    starts = ((text, draw.randrange(len(text) - 5)) for text in draw.choices(texts, k=number))
    return [" ".join(text[at : at + 5]) for text, at in starts]


def measured(*command: str | Path) -> tuple[float, float]:
    """Run a command. Return its wall seconds and peak resident MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([*CLI, *command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss * UNIT / MIB


def post(url: str, queries: Sequence[str]) -> Any:
    """Send queries to a server and return its answer."""
    data = json.dumps({"queries": queries, "topk": 3, "return_scores": True}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:  # noqa: S310 - our own server
        return json.load(answer)["result"]


@contextmanager
def served(*options: str | Path) -> Iterator[tuple[str, int, float]]:
    """Run a server. Yield its URL, its process id, and the seconds from its start to its first answer."""
    start = time.perf_counter()
    process = subprocess.Popen([*CLI, "serve", "--port", "0", *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        line = next(line for line in process.stderr if "/retrieve" in line)
        url = next(word for word in line.split() if word.startswith("http"))
        post(url, ["w10 w20 w30"])
        yield url, process.pid, time.perf_counter() - start
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def resident(pid: int) -> float:
    """Return the resident MiB of a process, with the mapped files that it has read."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def exact(sources: Sequence[str]) -> None:
    """Compare scores and queries per second of bm25 and rank-bm25, in alternation."""
    from rank_bm25 import BM25Okapi

    def both(documents: Documents, folder: Path) -> tuple[Bm25, Any]:
        settings = {"variant": "atire", "k1": 1.5, "title_weight": 1}
        (engine,) = choose(["bm25"], {"bm25": settings})
        assert engine.kind.build
        engine.kind.build(engine, documents, folder, Meter(None, "bm25"))
        oracle = BM25Okapi([tokens(text) for text in documents.texts(1)], k1=1.5, b=0.75, epsilon=0)
        return Bm25(folder), oracle

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Runner(
            STAGES, load_config(STAGES, store=folder / "store", sources=sources), ["load", "corpus", "decompose"]
        )
        store.run(Reporter(quiet=True))
        manifest = store.store.manifest()
        passages, hops = (manifest.output(table.name) for table in (PASSAGES, SUB_QUESTIONS))
        assert passages
        assert hops
        real = folder / "real"
        real.mkdir()
        rows = read_rows(store.store.path(passages), PASSAGES)
        write_documents((Document(row.passage_id, row.title, row.text) for row in rows), real)
        ours, oracle = both(Documents(real), real)
        queries = list(dict.fromkeys(hop.sub_question for hop in read_rows(store.store.path(hops), SUB_QUESTIONS)))
        worst = 0.0
        for query, found in zip(queries, ours.find(queries, 10), strict=True):
            scores = np.sort(oracle.get_scores(tokens(query)))[::-1][:10]
            scores = scores[scores > 0]
            assert len(scores) == len(found), query
            worst = max([worst, *np.abs(scores - sorted((score for _, score in found), reverse=True)).tolist()])
        print(
            f"{len(queries):,} sub-questions, {len(Documents(real)):,} paragraphs: top-10 scores differ by {worst:.1e}"
        )

        made = folder / "made"
        made.mkdir()
        write_documents(zipfian(100_000), made)
        ours, oracle = both(Documents(made), made)
        queries = made_up_queries(2_000)
        ours.find(queries, 10)  # compiles
        ratios = []
        for turn in range(5):
            start = time.perf_counter()
            ours.find(queries, 10)
            fast = len(queries) / (time.perf_counter() - start)
            few = queries[turn * 4 : turn * 4 + 4]
            start = time.perf_counter()
            for query in few:
                np.argsort(oracle.get_scores(tokens(query)))[::-1][:10]
            slow = len(few) / (time.perf_counter() - start)
            ratios.append(fast / slow)
            print(f"  bm25 {fast:8,.0f} queries/s, rank-bm25 {slow:6.2f}, one thread each: {ratios[-1]:,.0f} times")
        print(f"100,000 passages: median {statistics.median(ratios):,.0f} times (min {min(ratios):,.0f})")


def pruned(folder: Path, passages: int) -> None:
    """Compare processor time per query with that of bm25s by numba, one thread each, in alternation.

    Every turn asks other queries, for what was found of common words is remembered.
    """
    import bm25s

    write_documents(zipfian(passages), folder)
    (engine,) = choose(["bm25"], {})
    assert engine.kind.build
    engine.kind.build(engine, Documents(folder), folder, Meter(None, "bm25"))
    turns = [made_up_queries(4_000, seed) for seed in range(3)]
    theirs = bm25s.BM25.load(folder, mmap=True, show_progress=False, backend="numba")
    ours = Bm25(folder)
    sparse.compiling().result()

    def bm25s_retrieve(queries: list[str]) -> None:
        words = [[theirs.vocab_dict[word] for word in tokens(query) if word in theirs.vocab_dict] for query in queries]
        theirs.retrieve([each for each in words if each], k=3, show_progress=False)

    searches: dict[str, Callable[[list[str]], Any]] = {
        "bm25s": bm25s_retrieve,
        "bm25 by numpy": lambda queries: ours.hits(queries, 3),
        "bm25 by numba": lambda queries: ours.hits(queries, 3),
    }
    for turn, (queries, (name, search)) in enumerate(product(turns, searches.items())):
        sparse.MANY = 0 if name.endswith("numba") else 10**9
        start = time.process_time()
        search(queries)
        if turn >= len(searches):  # the first turns compile what bm25s does
            print(f"  {name}: {(time.process_time() - start) / len(queries) * 1e6:,.0f} μs per query")


def scale(folder: Path, sizes: dict[str, int]) -> None:
    """Index and serve synthetic corpora."""
    for engine, passages in sizes.items():
        corpus = write_corpus(folder / f"{passages}.jsonl", passages)
        seconds, peak = measured("index", "--quiet", "--corpus", corpus, "--engine", engine)
        size = sum(path.stat().st_size for path in Path(f"{corpus}.index").rglob("*") if path.is_file())
        print(
            f"{engine}, {passages:,} passages: index {seconds:.0f} s, peak {peak:,.0f} MiB, {size / 1e9:.2f} GB on disk"
        )
        queries = made_up_queries(4_000)
        with served("--corpus", corpus, "--engine", engine) as (url, pid, cold):
            fresh = resident(pid)
            start = time.perf_counter()
            for at in range(0, len(queries), 200):
                post(url, queries[at : at + 200])
            rate = len(queries) / (time.perf_counter() - start)
            print(f"  first answer {cold:.1f} s after a cold start, {fresh:,.0f} MiB resident", end="; ")
            print(f"{len(queries):,} queries at {rate:,.0f} a second, {resident(pid):,.0f} MiB after them")


async def _client(host: str, port: int, bodies: Iterator[bytes], until: float, latencies: list[float]) -> int:
    """Send requests one after another over one connection. Return the number of answers that were not 200."""
    reader, writer = await asyncio.open_connection(host, port)
    bad = 0
    while (begun := time.perf_counter()) < until:
        body = next(bodies)
        writer.write(b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        answer = await reader.readexactly(length)
        bad += not (head.startswith(b"HTTP/1.1 200") and answer.startswith(b'{"result"'))
        latencies.append(time.perf_counter() - begun)
    writer.close()
    return bad


def in_process(index: Path, queries: Sequence[str], seconds: float) -> float:
    """Measure queries per second of the engine itself, on all cores, 64 at a time."""
    bm25 = Bm25(index / "bm25", len(os.sched_getaffinity(0)))
    bm25.find(queries[:64], 3)
    start, done = time.perf_counter(), 0
    for at in cycle(range(0, len(queries), 64)):
        bm25.find(queries[at : at + 64], 3)
        done += 64
        if time.perf_counter() - start > seconds:
            return done / (time.perf_counter() - start)
    raise AssertionError


def serve(folder: Path, passages: int, seconds: float) -> None:
    """Measure 64 connections with one or eight queries per request, between two runs of the engine alone."""
    corpus = folder / f"{passages}.jsonl"
    if not corpus.exists():
        write_corpus(corpus, passages)
    measured("index", "--quiet", "--corpus", corpus)
    queries = made_up_queries(8_192)
    index = Path(f"{corpus}.index")
    with served("--corpus", corpus) as (url, pid, _):
        host, port = url.removeprefix("http://").removesuffix("/retrieve").split(":")
        for each in (1, 8):
            bodies = [
                json.dumps({"queries": queries[at : at + each], "topk": 3, "return_scores": True}).encode()
                for at in range(0, len(queries), each)
            ]
            before = in_process(index, queries, seconds / 4)

            async def load(bodies: Iterator[bytes]) -> tuple[int, list[float]]:
                latencies: list[float] = []
                until = time.perf_counter() + seconds
                bad = await asyncio.gather(*(_client(host, int(port), bodies, until, latencies) for _ in range(64)))
                return sum(bad), latencies

            bad, latencies = asyncio.run(load(cycle(bodies)))
            after = in_process(index, queries, seconds / 4)
            rate, alone = len(latencies) * each / seconds, (before + after) / 2
            p50, p99 = np.percentile(latencies, [50, 99]) * 1000
            print(
                f"{passages:,} passages, 64 clients, {each} queries a request, {seconds:.0f} s:"
                f" {len(latencies):,} requests, {bad} errors, p50 {p50:.0f} ms, p99 {p99:.0f} ms, {rate:,.0f} queries/s"
            )
            print(
                f"  the engine in this process: {before:,.0f} before, {after:,.0f} after: serve has {rate / alone:.0%}"
            )
        before_kill = post(url, queries[:100])
        os.kill(pid, signal.SIGKILL)
    with served("--corpus", corpus) as (url, _, cold):
        if post(url, queries[:100]) != before_kill:
            sys.exit("the answers after a kill are others")
        print(f"kill -9 and start again: the same answers after {cold:.1f} s")


def vote(folder: Path, sources: Sequence[str]) -> None:
    """Let three engines vote on real questions. The third is our own server with another variant of BM25."""
    given = [option for source in sources for option in ("--source", source)]
    other = [
        "--set",
        "engines.bm25.variant=atire",
        "--set",
        "engines.bm25.b=0.4",
        "--set",
        "engines.bm25.title_weight=1",
    ]
    measured("build", "--quiet", "--store", folder / "other", "--to", "index", *other, *given)
    with served("--store", folder / "other") as (url, _, _):
        engines = ["--engine", "bm25", "--engine", "chargram", "--engine", f"http={url}"]
        measured("build", "--quiet", "--store", folder / "store", *engines, *given)
    measured("audit", "--store", folder / "store")
    agree = "avg((valid_engines IN (0, engines))::INT) AS all_agree"
    kept = f"SELECT count(*) AS queries, avg(kept::INT) AS kept, {agree} FROM votes"
    measured("sql", "--store", folder / "store", kept)


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("exact", "vote"):
        verbs.add_parser(verb).add_argument("sources", nargs="+", metavar="KIND=PATH")
    sizes = verbs.add_parser("scale")
    sizes.add_argument("--bm25", type=int, default=1_000_000, metavar="PASSAGES")
    sizes.add_argument("--tantivy", type=int, default=5_000_000, metavar="PASSAGES")
    verbs.add_parser("pruned").add_argument("--passages", type=int, default=1_000_000)
    load = verbs.add_parser("serve")
    load.add_argument("--passages", type=int, default=1_000_000)
    load.add_argument("--seconds", type=float, default=60.0)
    for benchmark in (sizes, load):
        benchmark.add_argument(
            "--folder", type=Path, help="keep corpora and indexes here (default: a temporary folder)"
        )
    options = parser.parse_args()
    if options.verb == "exact":
        exact(options.sources)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = getattr(options, "folder", None) or Path(temporary)
        folder.mkdir(exist_ok=True)
        if options.verb == "pruned":
            pruned(folder, options.passages)
        elif options.verb == "scale":
            wanted = {"bm25": options.bm25, "tantivy": options.tantivy}
            scale(folder, {engine: passages for engine, passages in wanted.items() if passages})
        elif options.verb == "serve":
            serve(folder, options.passages, options.seconds)
        else:
            vote(folder, options.sources)


if __name__ == "__main__":
    main()

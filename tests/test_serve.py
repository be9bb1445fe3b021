"""The server as its clients meet it: a process, asked over loopback."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stepsearch_data import __version__
from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.indexes import Choice, Load, opened
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.search import LocalEngine
from stepsearch_data.serve.start import bind, start
from stepsearch_data.stages import STAGES
from tests.conftest import Run
from tests.serving import PASSAGES, QUERIES, Server, engine_of, expected, write_corpus

INDEX = "corpus.jsonl.index"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("served") / "corpus.jsonl")


@pytest.fixture(scope="module")
def server(corpus: Path) -> Iterator[Server]:
    with Server("--corpus", corpus) as running:
        yield running


@pytest.fixture(scope="module")
def engine(server: Server, corpus: Path) -> LocalEngine:
    assert server.url
    return engine_of(corpus.with_name(INDEX))


def question(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_the_ready_line_says_what_is_served_where_and_how_to_ask(server: Server) -> None:
    assert f"serving bm25 over 400 passages of corpus.jsonl on {server.url}/retrieve" in server.said
    command, url, flag, data = shlex.split(server.said.splitlines()[-1])
    assert (command, flag) == ("curl", "-d")
    assert httpx2.post(url, content=data).status_code == 200


def test_documents_come_in_search_r1s_dialect(server: Server, engine: LocalEngine) -> None:
    answer = server.ask(queries=QUERIES[:3], topk=2, return_scores=True)
    assert answer == expected(engine, QUERIES[:3], 2)
    document = answer[0][0]["document"]
    passage = next(passage for passage in PASSAGES if passage["id"] == document["id"])
    assert document["contents"] == f'"{passage["title"]}"\n{passage["text"]}'


@pytest.mark.parametrize(
    ("fields", "k", "scores"),
    [
        ({}, 3, False),
        ({"topk": None, "return_scores": True}, 3, True),
        ({"topk": 0, "return_scores": None}, 3, False),
        ({"topk": 2, "return_scores": False}, 2, False),
        ({"topk": 1000}, 1000, False),  # more than there are
        ({"topk": 1, "user": "me"}, 1, False),  # fields that the original ignores are ignored
    ],
    ids=str,
)
def test_topk_is_the_servers_and_documents_stand_alone_unless_it_is_said(
    server: Server, engine: LocalEngine, fields: dict[str, Any], k: int, *, scores: bool
) -> None:
    found = server.ask(queries=["word1 word2 word3", *QUERIES[:2]], **fields)
    assert found == expected(engine, ["word1 word2 word3", *QUERIES[:2]], k, scores=scores)
    assert min(k, 4) <= len(found[0]) < len(PASSAGES)


def test_queries_without_a_word_find_nothing(server: Server) -> None:
    assert server.ask(queries=["", "?!", '(X: "', "\u0000", "zyzzyva"]) == [[]] * 5
    assert server.ask(queries=[]) == []


def test_skyrl_gym_asks_one_query_at_a_time(server: Server) -> None:
    fields = {"topk": 2, "return_scores": True}
    assert server.ask(query=QUERIES[0], **fields) == server.ask(queries=QUERIES[:1], **fields)


MALFORMED = [
    (b"", 400),
    (b"queries=x", 400),
    (b"{", 400),
    (b'{"queries": ["\\ud800"]}', 400),
    (b'{"queries": ["\xff"]}', 400),
    (b'{"queries": [NaN]}', 400),
    (b"[" * 5000, 400),
    (b"[]", 422),
    (b"null", 422),
    (b"{}", 422),
    (question(query=["a"]), 422),
    (question(query="a", queries=["b"]), 422),
    (question(queries="one query"), 422),
    (question(queries=None), 422),
    (question(queries=["a", 1]), 422),
    (question(queries=[["a"]]), 422),
    (question(queries=["a"], topk=-1), 422),
    (question(queries=["a"], topk=1001), 422),
    (question(queries=["a"], topk="3"), 422),
    (question(queries=["a"], topk=1.5), 422),
    (question(queries=["a"], topk=True), 422),
    (question(queries=["a"], return_scores="yes"), 422),
    (question(queries=["a"] * 10_001), 422),
    (question(queries=["a" * 100_001]), 422),
    (question(queries=["a"] * 10_000, topk=1000), 422),
]


@pytest.mark.parametrize(("body", "status"), MALFORMED, ids=[repr(body[:40]) for body, _ in MALFORMED])
def test_what_is_malformed_is_refused_with_a_reason(server: Server, body: bytes, status: int) -> None:
    reply = server.send("/retrieve", body)
    assert reply.status_code == status
    assert reply.headers["Content-Type"] == "application/json"
    assert isinstance(reply.json()["detail"], str)
    assert "Traceback" not in reply.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/retrieve", 405),
        ("GET", "/open", 405),
        ("GET", "/find", 405),
        ("PUT", "/retrieve", 405),
        ("POST", "/health", 405),
        ("GET", "/", 404),
        ("POST", "/x", 404),
    ],
)
def test_other_paths_and_methods_are_refused_in_json(server: Server, method: str, path: str, status: int) -> None:
    reply = server.send(path, b"{}" if method == "POST" else None, method)
    assert (reply.status_code, list(reply.json())) == (status, ["detail"])


def test_a_body_over_8_mib_is_refused_however_it_comes(server: Server) -> None:
    large = question(queries=["x" * (8 << 20)])
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b"x" * (1 << 20))
    squeezed = gzip.compress(large)
    for request in (
        POST + b"Content-Length: %d\r\n\r\n%s" % (len(large), large),
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + 9 * chunk + b"0\r\n\r\n",
        POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(squeezed), squeezed),
    ):
        assert raw(server, request).startswith(b"HTTP/1.1 413 ")
    almost = question(queries=["x" * 100_000] * 80)
    assert server.send("/retrieve", almost).status_code == 200


def raw(server: Server, request: bytes) -> bytes:
    """What comes back for these bytes, to the end."""
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


POST = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
BAD_GZIP = POST + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\r\n\r\n",
        b"GET / SPDY/9\r\n\r\n",
        POST + b"Content-Length: x\r\n\r\n",
        POST + b"X: " + b"y" * 10_000 + b"\r\n\r\n",
        BAD_GZIP,
        POST + b"Transfer-Encoding: chunked\r\n\r\nnope\r\n",
    ],
    ids=lambda garbage: repr(garbage[-30:]),
)
def test_what_is_no_http_is_a_bad_request(server: Server, garbage: bytes) -> None:
    assert raw(server, garbage).split(maxsplit=2)[1] == b"400"


def test_a_thousand_queries_are_one_request(server: Server, engine: LocalEngine) -> None:
    queries = [f"{query} {number}" for number in range(5) for query in QUERIES]
    assert server.ask(queries=queries, topk=3, return_scores=True) == expected(engine, queries, 3)


@pytest.mark.long
def test_64_clients_at_once_get_what_each_would_get_alone(server: Server, engine: LocalEngine) -> None:
    asked = [(QUERIES[at % 190 : at % 190 + 1 + at % 3], 1 + at % 5) for at in range(64 * 20)]
    with ThreadPoolExecutor(64) as clients:
        answers = clients.map(lambda each: server.ask(queries=each[0], topk=each[1], return_scores=True), asked)
        for (queries, k), answer in zip(asked, answers, strict=True):
            assert answer == expected(engine, queries, k)


def test_clients_that_are_slow_or_leave_disturb_nobody(server: Server, engine: LocalEngine) -> None:
    head = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    whole = question(queries=QUERIES * 20, topk=3)
    slow = [socket.create_connection(server.address) for _ in range(50)]
    for at, connection in enumerate(slow):
        connection.sendall((b"POST", head, head + b'{"queries": [')[at % 3])
    for _ in range(20):  # ask for much, and go
        with socket.create_connection(server.address) as connection:
            connection.sendall(head.replace(b"100000", b"%d" % len(whole)) + whole)
    begun = time.monotonic()
    for query in QUERIES[:20]:
        assert server.ask(queries=[query], return_scores=True) == expected(engine, [query], 3)
    assert time.monotonic() - begun < 10
    for connection in slow:
        connection.close()
    for _ in range(100):
        numbers = metrics(server)
        if numbers["stepsearch_requests_in_flight"] == numbers["stepsearch_queries_waiting"] == 0:
            return
        time.sleep(0.1)
    pytest.fail("something still waits")


def metrics(server: Server) -> dict[str, float]:
    lines = server.send("/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_metrics_count_what_was_asked(server: Server) -> None:
    before = metrics(server)
    server.ask(queries=QUERIES[:5], topk=2)
    server.send("/retrieve", b"{}")
    server.send("/nowhere")
    after = metrics(server)
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert grown['stepsearch_requests_total{path="/retrieve",status="200"}'] == 1
    assert grown['stepsearch_requests_total{path="/retrieve",status="422"}'] == 1
    assert grown['stepsearch_requests_total{path="other",status="404"}'] == 1
    assert grown["stepsearch_queries_total"] == 5
    assert grown["stepsearch_documents_total"] == 10
    assert grown["stepsearch_retrieve_seconds_count"] == 2
    assert grown["stepsearch_batch_queries_count"] == 1


def test_health_says_what_is_served(server: Server) -> None:
    facts = {"status": "ok", "engine": "bm25", "passages": 400, "version": __version__}
    assert server.send("/health").json() == facts
    assert server.send("/health", method="HEAD").content == b""


def test_search_asks_the_server_as_an_engine(server: Server, cli: Run, corpus: Path) -> None:
    shown = cli("search", QUERIES[0], "--corpus", corpus, "--json", "-e", "bm25", "-e", f"http={server.url}", "-k", "4")
    assert shown.returncode == 0, shown.stderr
    hits = json.loads(shown.stdout)["hits"]
    assert [(hit["score"], hit["text"]) for hit in hits["bm25"]] == [(h["score"], h["text"]) for h in hits["http"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(corpus: Path, server: Server, number: signal.Signals) -> None:
    assert server.url
    with Server("--corpus", corpus) as other:
        idle = socket.create_connection(other.address)
        assert other.ask(queries=QUERIES[:1])
        assert raw(other, b"no HTTP\r\n\r\n")
        assert raw(other, BAD_GZIP)
        assert other.stop(number) == (0, "")
        idle.close()


@pytest.mark.long
def test_after_kill_9_the_next_one_serves_the_same_at_once(corpus: Path, server: Server) -> None:
    before = server.ask(queries=QUERIES, return_scores=True)
    with Server("--corpus", corpus) as other:
        port = other.address[1]
        other.process.kill()
        other.process.wait()
    with Server("--corpus", corpus, "--port", str(port), "--topk", "3") as again:
        assert again.address[1] == port
        assert "documents" not in again.said  # nothing was built
        assert again.ask(queries=QUERIES, return_scores=True) == before


def test_a_store_is_served_as_it_was_while_it_is_built_again(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    store = tmp_path / "store"
    shutil.copytree(sample_store, store)
    with Server("--store", store) as running:
        before = running.ask(queries=["The Barber of Seville composer"], return_scores=True)
        assert before[0][0]["document"]["contents"].startswith('"The Barber of Seville"\n')
        again = cli("build", "--store", store, "--to", "index", "--set", "engines.bm25.k1=2.0", "--quiet")
        assert again.returncode == 0, again.stderr
        assert running.ask(queries=["The Barber of Seville composer"], return_scores=True) == before
    with opened(Choice(store=store), load(), Reporter(quiet=True)) as index:
        assert [engine.config.k1 for engine in index.engines] == [2.0]


def test_an_index_is_served_without_its_corpus(corpus: Path, server: Server, tmp_path: Path) -> None:
    moved = corpus.with_name(INDEX).rename(tmp_path / "moved")
    try:
        with Server("--index", moved) as running:
            assert running.ask(queries=QUERIES[:5]) == server.ask(queries=QUERIES[:5])
    finally:
        moved.rename(corpus.with_name(INDEX))


def test_the_loopback_is_the_default_and_more_is_warned_about(corpus: Path, server: Server) -> None:
    assert server.address[0] == "127.0.0.1"
    assert "warning" not in server.said
    with Server("--corpus", corpus, "--host", "0.0.0.0") as open_to_all:
        assert open_to_all.stop()[0] == 0
        assert "warning: whoever reaches this address can search" in open_to_all.said


def load(*settings: str) -> Load:
    return lambda first: load_config(STAGES, None, [*first, *settings], environment={})


CHOSEN = "engines.use="


@pytest.mark.parametrize(
    ("choice", "settings", "message"),
    [
        ({}, [f"{CHOSEN}['tantivy']"], "build --store {store} --to index --engine bm25 --engine tantivy"),
        ({}, ["engines.bm25.k1=0.7"], "was built with k1=1.2"),
        ({}, [f"{CHOSEN}['http']"], "http is not an engine of this process"),
        ({"corpus": "none.jsonl"}, [], "there is no corpus"),
        ({"corpus": "corpus.jsonl"}, [f"{CHOSEN}['bm25', 'chargram']"], "--engine bm25 or --engine chargram"),
        ({"corpus": "corpus.jsonl"}, ["engines.bm25.index='/other'"], "serve that index: --index /other"),
        ({"store": "nowhere"}, [], "there is no store"),
        ({"index": "empty"}, [], "holds no index"),
    ],
)
def test_what_cannot_be_served_is_said(
    corpus: Path, server: Server, sample_store: Path, choice: dict[str, str], settings: list[str], message: str
) -> None:
    assert server.url
    chosen = Choice(**{name: corpus.with_name(path) for name, path in choice.items()} or {"store": sample_store})
    with pytest.raises(StepSearchError) as error:
        start(chosen, load(*settings), "127.0.0.1", 0, 3)
    assert message.format(store=sample_store) in f"{error.value.message} {error.value.hint}"


def test_an_address_that_cannot_be_had_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"--host no.such.host.invalid: no such address"):
        bind("no.such.host.invalid", 0)
    with pytest.raises(ConfigError, match=r"cannot serve on 192.0.2.1"):
        bind("192.0.2.1", 0)


def test_an_error_is_one_line(server: Server, corpus: Path, cli: Run) -> None:
    result = cli("serve", "--corpus", corpus, "--port", str(server.address[1]))
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"error: port {server.address[1]} of 127.0.0.1 is taken",
        "hint: choose another: --port N, or 0 for any",
    ]

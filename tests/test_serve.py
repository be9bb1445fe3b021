"""The server as its clients meet it: a process, asked over loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stepsearch_data import __version__
from stepsearch_data.core.errors import ConfigError, SearchError, StepSearchError
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


@pytest.mark.parametrize("flag", [{}, {"return_scores": False}, {"return_scores": None}], ids=str)
def test_without_scores_the_documents_stand_alone(server: Server, engine: LocalEngine, flag: dict[str, Any]) -> None:
    assert server.ask(queries=QUERIES[:3], topk=2, **flag) == expected(engine, QUERIES[:3], 2, scores=False)


@pytest.mark.parametrize("topk", [{}, {"topk": None}, {"topk": 0}], ids=str)
def test_topk_is_the_servers_unless_it_is_said(server: Server, engine: LocalEngine, topk: dict[str, Any]) -> None:
    assert server.ask(queries=QUERIES[:1], **topk) == expected(engine, QUERIES[:1], 3, scores=False)


def test_topk_may_exceed_what_there_is(server: Server, engine: LocalEngine) -> None:
    (found,) = server.ask(queries=["word1 word2 word3"], topk=1000)
    assert 3 < len(found) < len(PASSAGES)
    assert [found] == expected(engine, ["word1 word2 word3"], 1000, scores=False)


def test_queries_without_a_word_find_nothing(server: Server) -> None:
    assert server.ask(queries=["", "?!", '(X: "', "\u0000", "zyzzyva"]) == [[]] * 5
    assert server.ask(queries=[]) == []


def test_skyrl_gym_asks_one_query_at_a_time(server: Server) -> None:
    fields = {"topk": 2, "return_scores": True}
    assert server.ask(query=QUERIES[0], **fields) == server.ask(queries=QUERIES[:1], **fields)


def test_fields_that_the_original_ignores_are_ignored(server: Server) -> None:
    assert server.ask(queries=QUERIES[:1], topk=1, user="me") == server.ask(queries=QUERIES[:1], topk=1)


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


def test_curl_need_not_wait_to_send_a_long_body(server: Server) -> None:
    body = question(queries=QUERIES[:1])
    head = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_a_thousand_queries_are_one_request(server: Server, engine: LocalEngine) -> None:
    queries = [f"{query} {number}" for number in range(5) for query in QUERIES]
    assert server.ask(queries=queries, topk=3, return_scores=True) == expected(engine, queries, 3)


def test_64_clients_at_once_get_what_each_would_get_alone(server: Server, engine: LocalEngine) -> None:
    asked = [
        [
            question(queries=QUERIES[at : at + 1 + client % 3], topk=1 + client % 5, return_scores=True)
            for at in range(20)
        ]
        for client in range(64)
    ]

    async def exchange(http: httpx2.AsyncClient, bodies: list[bytes]) -> list[bytes]:
        return [(await http.post("/retrieve", content=body)).raise_for_status().content for body in bodies]

    async def clients(*each: list[bytes]) -> list[list[bytes]]:
        async with httpx2.AsyncClient(base_url=server.url, timeout=30) as http:
            return await asyncio.gather(*(exchange(http, bodies) for bodies in each))

    together = asyncio.run(clients(*asked))
    for client in (0, 1, 2, 63):
        assert asyncio.run(clients(asked[client])) == [together[client]]
    for client, answers in enumerate(together):
        for at, answer in enumerate(answers):
            queries = QUERIES[at : at + 1 + client % 3]
            assert json.loads(answer)["result"] == expected(engine, queries, 1 + client % 5)


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


def test_a_store_is_served_as_it_was_while_it_is_built_anew(sample_store: Path, tmp_path: Path, cli: Run) -> None:
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
    ("settings", "hint"),
    [
        ([f"{CHOSEN}['tantivy']"], "build --store {store} --to index --engine bm25 --engine tantivy"),
        (["engines.bm25.k1=0.7"], "was built with k1=1.2"),
        ([f"{CHOSEN}['http']"], "http is no engine of this process"),
    ],
)
def test_an_engine_that_the_store_has_not_is_an_error(sample_store: Path, settings: list[str], hint: str) -> None:
    with pytest.raises(StepSearchError) as error:
        start(Choice(store=sample_store), load(*settings), "127.0.0.1", 0, 3)
    assert hint.format(store=sample_store) in f"{error.value.message} {error.value.hint}"


@pytest.mark.parametrize(
    ("choice", "settings", "message"),
    [
        ({"corpus": "none.jsonl"}, [], "there is no corpus"),
        ({"corpus": "corpus.jsonl"}, [f"{CHOSEN}['bm25', 'chargram']"], "--engine bm25 or --engine chargram"),
        ({"corpus": "corpus.jsonl"}, ["engines.bm25.index='/other'"], "serve that one: --index /other"),
        ({"store": "nowhere"}, [], "there is no store"),
        ({"index": "empty"}, [], "holds no index"),
    ],
)
def test_what_cannot_be_served_is_said(
    corpus: Path, server: Server, choice: dict[str, str], settings: list[str], message: str
) -> None:
    assert server.url
    chosen = Choice(**{name: corpus.with_name(path) for name, path in choice.items()})
    with pytest.raises(StepSearchError) as error:
        start(chosen, load(*settings), "127.0.0.1", 0, 3)
    assert message in f"{error.value.message} {error.value.hint}"


def test_an_address_that_cannot_be_had_is_an_error(server: Server) -> None:
    with pytest.raises(SearchError, match=f"port {server.address[1]} of 127.0.0.1 is taken"):
        bind(*server.address)
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

"""Beyond the limit of open files servers refuse politely, and connections that do nothing go in time."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from aiohttp import web

from stepsearch_data.serve import server
from stepsearch_data.serve.connection_limit import ConnectionLimit, most_connections
from stepsearch_data.serve.start import bind
from tests.serving import Server

FILES = 64
PATHS = {"serve": "/health", "view": "/api/trajectories?limit=1"}


def ask(connection: socket.socket, path: str) -> str:
    """The status of one exchange."""
    connection.settimeout(30)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection.recv(1 << 16).decode(errors="replace").split()[1]


@pytest.mark.long
@pytest.mark.parametrize("verb", PATHS)
def test_beyond_the_limit_of_files_connections_are_refused_and_it_is_said_once(verb: str, sample_store: Path) -> None:
    with Server("--store", sample_store, verb=verb, files=FILES) as server:
        with ExitStack() as stack:
            connect = [
                stack.enter_context(closing(socket.create_connection(server.address, timeout=30)))
                for _ in range(2 * FILES)
            ]
            answers = [ask(connection, PATHS[verb]) for connection in connect[:4]]
            refused = ask(stack.enter_context(closing(socket.create_connection(server.address))), PATHS[verb])
            assert (answers, refused) == (["200"] * 4, "503")
            assert len(list(Path(f"/proc/{server.process.pid}/fd").glob("*"))) < FILES
        for _ in range(50):  # until those that were closed are gone
            with closing(socket.create_connection(server.address)) as connection:
                status = ask(connection, PATHS[verb])
            if status == "200":
                break
        assert status == "200"
        code, said = server.stop()
    assert code == 0
    warnings = [line for line in said.splitlines() if line.strip()]
    assert len(warnings) == 1
    assert "connections at once are refused, as this process may open 64 files" in warnings[0]


def test_files_are_kept_for_the_work_itself() -> None:
    assert 1 <= most_connections(FILES) < FILES - 20
    assert 700 < most_connections(1024) < 1024 - 128
    assert most_connections(1) == 1
    assert most_connections(resource.RLIM_INFINITY) > 1 << 20


@pytest.mark.anyio
async def test_what_cannot_be_accepted_is_said_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    limit = ConnectionLimit(web.Server(web.Application()._handle))  # type: ignore[arg-type]  # it is never asked
    error = {"message": "socket.accept() out of system resource", "exception": OSError(24, "too many")}
    for context in [*[error] * 1000, {"message": "something else", "exception": ZeroDivisionError()}]:
        limit.handle(loop, context)
    assert [record.message.split(":")[0] for record in caplog.records] == ["warning", "something else"]


@pytest.mark.anyio
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_connections_that_do_nothing_go_in_time(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, half a request, or nothing after an answer."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    ready = asyncio.Event()
    with closing(bind("127.0.0.1", 0)) as bound:
        task = asyncio.create_task(server.run(web.Application(), bound, ready.set))
        await ready.wait()
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        writer.write(sent)
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert answer[:12] == (b"HTTP/1.1 404" if sent.endswith(b"\n\r\n") else b"")
        writer.close()
        os.kill(os.getpid(), signal.SIGTERM)
        await task

"""Beyond the limit of open files servers refuse politely, and connections that do nothing go in time."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from stepsearch_data.serve import door, server
from stepsearch_data.serve.start import bind

FILES = 64
PATHS = {"serve": "/health", "view": "/api/trajectories?limit=1"}
Address = tuple[str, int]


@contextmanager
def started(verb: str, store: Path) -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """A server that may open few files, as a process of its own."""
    script = f'ulimit -n {FILES}; exec "$0" -W error -m stepsearch_data "$@"'
    command = ["sh", "-c", script, sys.executable, verb, "--port", "0", "--store", str(store)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        found = next(m for line in process.stderr if (m := re.search(r"http://(127\.0\.0\.1):(\d+)/", line)))
        yield process, (found[1], int(found[2]))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask(connection: socket.socket, path: str) -> str:
    """The status of one exchange."""
    connection.settimeout(30)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection.recv(1 << 16).decode(errors="replace").split()[1]


@pytest.mark.parametrize("verb", PATHS)
def test_beyond_the_limit_of_files_connections_are_refused_and_it_is_said_once(verb: str, sample_store: Path) -> None:
    with started(verb, sample_store) as (process, address):
        with ExitStack() as stack:
            connect = [
                stack.enter_context(closing(socket.create_connection(address, timeout=30))) for _ in range(2 * FILES)
            ]
            answers = [ask(connection, PATHS[verb]) for connection in connect[:4]]
            refused = ask(stack.enter_context(closing(socket.create_connection(address))), PATHS[verb])
            assert (answers, refused) == (["200"] * 4, "503")
            assert len(list(Path(f"/proc/{process.pid}/fd").glob("*"))) < FILES
        for _ in range(50):  # until those that were closed are gone
            with closing(socket.create_connection(address)) as connection:
                status = ask(connection, PATHS[verb])
            if status == "200":
                break
        assert status == "200"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    warnings = [line for line in said.splitlines() if "curl" not in line and line.strip()]
    assert len(warnings) == 1
    assert "connections at once are refused, as this process may open 64 files" in warnings[0]


def test_files_are_kept_for_the_work_itself() -> None:
    assert 1 <= door.most_connections(FILES) < FILES - 20
    assert 700 < door.most_connections(1024) < 1024 - 128
    assert door.most_connections(1) == 1
    assert door.most_connections(resource.RLIM_INFINITY) > 1 << 20


def test_what_cannot_be_accepted_is_said_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        let_in = door.Door(web.Server(web.Application()._handle))  # type: ignore[arg-type]  # it is never asked
        with let_in.watching(loop):
            for _ in range(1000):
                context = {"message": "socket.accept() out of system resource", "exception": OSError(24, "too many")}
                loop.call_exception_handler(context)
            loop.call_exception_handler({"message": "something else", "exception": ZeroDivisionError()})

    asyncio.run(main())
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

"""The malformed answers are sent as told, and none keeps its server from ending."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.malformed import CASES, Case, name_of, serve_raw


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_an_answer_begins_as_told_and_its_server_ends_at_once(case: Case) -> None:
    first = next(iter(case.steps()), b"")
    with serve_raw(case) as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(b"POST /v1 HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            if isinstance(first, bytes):
                assert client.recv(50) == first[:50]
            else:
                client.settimeout(0.05 if first else 30)
                with pytest.raises(TimeoutError if first else ConnectionResetError):
                    client.recv(50)
            started = time.monotonic()
    assert time.monotonic() - started < 1
    assert server.heads == ["POST /v1 HTTP/1.1\r\nContent-Length: 2\r\n\r\n"]

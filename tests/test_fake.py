"""The fakes of HTTP APIs answer the same on loopback and in the place of a client's transport."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import httpx2
import pytest

from tests.fake import FakeServer, fault, reach


@pytest.mark.parametrize("loopback", [True, False])
def test_a_handler_answers_on_loopback_and_as_a_transport(*, loopback: bool) -> None:
    server = FakeServer(lambda asked: fault(418, [asked.method, asked.path, asked.params, asked.body], X_Kind="pot"))
    with server if loopback else nullcontext():
        url, transport = reach(server)

        async def post() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=transport, headers={"Authorization": "me"}) as client:
                return await client.post(f"{url}/tea", params={"a": "1"}, json={"cups": 2})

        reply = asyncio.run(post())
    assert (transport is None) == loopback
    assert (reply.status_code, reply.headers["x-kind"]) == (418, "pot")
    assert reply.json() == ["POST", "/tea", {"a": "1"}, {"cups": 2}]
    assert [asked.headers["authorization"] for asked in server.requests] == ["me"]
    assert (server.in_flight, server.most_in_flight) == (0, 1)

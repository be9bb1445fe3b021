"""The fakes of HTTP APIs answer the same on loopback and in the place of a client's transport."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx2
import pytest

from tests.fake import FakeServer, Fault, fault, mock
from tests.llm_server import LlmServer, completion, error
from tests.search_servers import KEY, Page, SearchServer


async def _post(client: httpx2.AsyncClient, url: str, body: object, **headers: str) -> httpx2.Response:
    async with client:
        return await client.post(url, params={"a": "1"}, json=body, headers=headers)


@pytest.mark.parametrize("loopback", [True, False])
def test_a_handler_answers_on_loopback_and_as_a_transport(*, loopback: bool) -> None:
    server = FakeServer(lambda asked: fault(418, [asked.method, asked.path, asked.params, asked.body], X_Kind="pot"))
    if loopback:
        with server:
            reply = asyncio.run(_post(httpx2.AsyncClient(), f"{server.url}/tea", {"cups": 2}, Authorization="me"))
    else:
        client = httpx2.AsyncClient(transport=mock(server))
        reply = asyncio.run(_post(client, f"{server.url}/tea", {"cups": 2}, Authorization="me"))
    assert (reply.status_code, reply.headers["x-kind"]) == (418, "pot")
    assert reply.json() == ["POST", "/tea", {"a": "1"}, {"cups": 2}]
    assert [asked.headers["authorization"] for asked in server.requests] == ["me"]
    assert (server.in_flight, server.most_in_flight) == (0, 1)


def test_apis_need_no_network() -> None:
    answers: Iterator[str | Fault] = iter(["hello", error(500, "oops")])
    chat, search = LlmServer(lambda _: next(answers)), SearchServer("serper", lambda query: [Page(query, "text")])
    url = f"{chat.url}/chat/completions"
    replies = [asyncio.run(_post(httpx2.AsyncClient(transport=mock(chat)), url, {"n": n})) for n in range(2)]
    assert [reply.status_code for reply in replies] == [200, 500]
    assert replies[0].json() == completion("hello")
    assert chat.requests == [{"n": 0}, {"n": 1}]
    client = httpx2.AsyncClient(transport=mock(search))
    found = asyncio.run(_post(client, search.url, {"q": "Rome"}, **{"X-API-KEY": KEY})).json()["organic"]
    assert ([page["title"] for page in found], search.queries) == (["Rome"], ["Rome"])

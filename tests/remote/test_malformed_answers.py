"""Every client meets every malformed answer: one line says what happened, no key is told, no redirect followed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from stepsearch_data.core.errors import ProviderError, RowRejected, SearchError
from stepsearch_data.llm.chat import Message, Request
from stepsearch_data.llm.endpoint import Endpoint
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.remote import client
from stepsearch_data.remote.http import TransientError
from stepsearch_data.search import Service, embeddings_http
from stepsearch_data.search.embeddings_http import RemoteEmbedder
from stepsearch_data.search.kinds import choose
from tests.malformed import CASES, Case, name_of, serve_raw

KEY = "k3y-0123456789abcdef"
Client = Callable[[str, float], str]


def llm(url: str, timeout: float) -> str:
    """What a language model's client makes of a server."""

    async def go() -> str:
        async with aclosing(Endpoint(LlmSettings(base_url=url + "/v1", timeout=timeout), 1)) as endpoint:
            try:
                return (await endpoint.send(Request("mock", (Message("user", "Hi"),)))).text
            except (TransientError, RowRejected, ProviderError) as error:
                return str(error)

    return asyncio.run(go())


def search(url: str, timeout: float) -> str:
    """What a search API's client makes of it."""
    (engine,) = choose(["serper"], {"serper": {"url": url, "timeout": timeout, "max_attempts": 1}})

    async def go() -> str:
        opened = engine.kind.open(engine, None, None, Service())
        try:
            return (await opened.search(["a"], 3))[0].error
        except SearchError as error:
            return str(error)
        finally:
            await opened.close()

    return asyncio.run(go())


def embeddings(url: str, timeout: float) -> str:
    """What an embeddings client makes of it."""
    embedder = RemoteEmbedder("dense", "mock", url, 1, 1, timeout)
    try:
        (vector,) = embedder.embed(["a"])
        return vector if isinstance(vector, str) else ""
    except SearchError as error:
        return str(error)
    finally:
        embedder.close()


@pytest.mark.parametrize("case", CASES, ids=name_of)
@pytest.mark.parametrize("ask", [llm, search, embeddings])
def test_one_clear_line(ask: Client, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "uniform", lambda *_: 0.0)
    monkeypatch.setattr(embeddings_http, "_ATTEMPTS", 1)
    for name in ("OPENAI_API_KEY", "SERPER_API_KEY"):
        monkeypatch.setenv(name, KEY)
    with serve_raw(case) as server:
        said = ask(server.url, 0.15 if case.endless else 10.0)
    assert len(said.splitlines()) <= 1
    assert len(said) < 500
    assert KEY not in said
    assert len(server.heads) == 1

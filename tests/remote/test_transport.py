from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import httpx2
import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.remote.http import Http, TransientError, retry_after
from tests.fake import Asked, FakeServer

BAD_URL = ConfigError("not a URL")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(lambda asked: {"path": asked.path}) as server:
        yield server


def get(url: str) -> httpx2.Response:
    """What a server answers."""

    async def go() -> httpx2.Response:
        http = Http(5.0, 2, BAD_URL)
        try:
            return await http.request("GET", url)
        finally:
            await http.aclose()

    return asyncio.run(go())


def test_a_request_reaches_the_server(server: FakeServer) -> None:
    assert get(server.url + "/a%2Fb?q=1%202").json() == {"path": "/a/b"}
    asked: Asked = server.requests[0]
    assert asked.params == {"q": "1 2"}


def test_the_proxy_of_the_environment_is_asked(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    get("http://nobody.invalid/v1")
    assert server.requests[0].headers["host"] == "nobody.invalid"


def test_hosts_without_a_proxy_are_asked_directly(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert get(server.url).status_code == 200


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://127.0.0.1:9",
        "http://user:secret-0123456789@127.0.0.1:9",
        "http://user:pass/secret@127.0.0.1:9",
        "127.0.0.1:9",
        "http://[::1",
        "http://:9",
        "http://127.0.0.1:99999",
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(TransientError, match=r"proxy|127\.0\.0\.1") as error:
        get("http://nobody.invalid")
    assert "secret" not in str(error.value)


def test_user_and_password_of_a_url_go_into_a_header(server: FakeServer) -> None:
    get(server.url.replace("http://", "http://ann:pass@"))
    assert server.headers[0]["authorization"] == "Basic YW5uOnBhc3M="


def test_what_is_no_certificate_is_told_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificates = tmp_path / "certificates.pem"
    certificates.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates))
    with pytest.raises((TransientError, ssl.SSLError)) as error:
        get("https://127.0.0.1:9")
    assert isinstance(error.value, TransientError)


@pytest.mark.parametrize("url", ["", "/v1", "ftp://a/b", "http://", "http://[bad/v1", "http://a:99999", "http://a b/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="not a URL"):
        get(url)


def test_a_server_may_be_silent_for_as_long_as_a_call_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that thinks for minutes says nothing meanwhile."""
    monkeypatch.setattr("stepsearch_data.remote.http._SILENCE", 0.1)
    with FakeServer(lambda _: {}, delay=0.3) as server:
        assert get(server.url).status_code == 200


def test_a_body_is_shown_without_keys_but_with_its_words() -> None:
    http = Http(5.0, 1, BAD_URL, ["0123456789ab", "none"])  # as servers without keys are given
    assert http.body(httpx2.Response(200, content=b"none the less: 0123456789ab")) == b"none the less: ***"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 2020 00:00:00 +99999999999999"}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_says_how_long_to_wait_too() -> None:
    assert retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) == pytest.approx(28, abs=3)

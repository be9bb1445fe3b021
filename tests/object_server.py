"""A real S3 server on loopback (moto's), which fails on command.

with running_objects() as server: ... server.endpoint, server.requests, server.fault = …
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.request import Request, urlopen

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAMADEUPFORTESTS00",
    "AWS_SECRET_ACCESS_KEY": "made-up-Secret/9f8e7d6c5b4a",
    "AWS_REGION": "us-east-1",
}
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass(frozen=True)
class Broken:
    """How a request fails: with a status, also when it was carried out (`done`), late, or with half of the answer."""

    status: int = 0
    code: str = "InternalError"
    done: bool = False
    delay: float = 0.0
    cut: bool = False


@dataclass
class ObjectServer:
    """`fault` is asked about every request, by method and path, before it is carried out; `after` once it is."""

    endpoint: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    fault: Callable[[str, str], Broken | None] = lambda _method, _path: None
    after: Callable[[str, str], None] = lambda _method, _path: None
    ignores_conditions: bool = False
    _names: Iterator[int] = field(default_factory=count)

    def bucket(self) -> str:
        """Make a bucket; returns its name."""
        name = f"bucket-{next(self._names)}"
        with urlopen(Request(f"{self.endpoint}/{name}", method="PUT")):
            self.requests.clear()
        return name

    def asked(self, method: str) -> list[str]:
        """The paths of all requests of a method, without the bucket."""
        return [path.split("/", 2)[2] for made, path in self.requests if made == method and path.count("/") > 1]

    def wrapped(self, application: Application) -> Application:
        """The server with the faults."""

        def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            self.requests.append((method, path))
            if self.ignores_conditions:
                environ.pop("HTTP_IF_MATCH", None)
                environ.pop("HTTP_IF_NONE_MATCH", None)
            broken = self.fault(method, path)
            if broken and broken.delay:
                time.sleep(broken.delay)
            if broken and broken.done:
                b"".join(application(environ, lambda *_: None))
            if broken and broken.status:
                start(f"{broken.status} Broken", [("Content-Type", "application/xml")])
                secret = CREDENTIALS["AWS_ACCESS_KEY_ID"]
                return [f"<Error><Code>{broken.code}</Code><AWSAccessKeyId>{secret}</AWSAccessKeyId></Error>".encode()]
            body = b"".join(application(environ, start))
            self.after(method, path)
            return [body[: len(body) // 2]] if broken and broken.cut else [body]

        return answer


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        pass


@contextmanager
def running_objects() -> Iterator[ObjectServer]:
    """A server without buckets."""
    server = ObjectServer()
    application = server.wrapped(DomainDispatcherApplication(create_backend_app))
    listening = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    server.endpoint = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()

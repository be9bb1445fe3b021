"""The HTTP server of `view`: the page, what it asks for and what its reader marks, for this machine alone."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import ParamSpec, TypeVar

from aiohttp import web
from pydantic import ValidationError

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.core.validation import in_words
from stepsearch_data.pipeline.marks import Change
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.download import KINDS
from stepsearch_data.report.page import NO_CHARTS, Mode, Shell, data_script, shell
from stepsearch_data.report.rollouts import NONE, Rollouts
from stepsearch_data.report.view import View
from stepsearch_data.serve.server import Handler, in_json, run, to_json
from stepsearch_data.serve.start import bind

HOST = "127.0.0.1"
_LARGEST = 1 << 17  # bytes of a request: a note in JSON takes at most six times its characters
_NAMES = {HOST, "localhost", "[::1]"}
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_TYPES = {".csv": "text/csv", ".jsonl": "application/jsonl", ".parquet": "application/vnd.apache.parquet"}
_PIECE = 1 << 20  # bytes
P = ParamSpec("P")
T = TypeVar("T")


def view(
    store: Store,
    port: int,
    reporter: Reporter,
    *,
    title: str | None = None,
    browser: bool | None = None,
    rollouts: Rollouts = NONE,
) -> None:
    """Show a store until a signal says stop; in a `browser`, by default where there is a desktop to open it on.

    Raises StoreError where there is nothing to show, SearchError where the port is taken.
    """
    with closing(bind(HOST, port)) as bound:
        seen = View(store, title, rollouts)
        with reporter.stage("view") as meter:
            meter.say("reading the store")
            page = shell(Mode.remote, seen.summary()["title"])
        url = f"http://{HOST}:{bound.getsockname()[1]}/"

        if not page.draws:
            reporter.line(NO_CHARTS)

        def ready() -> None:
            reporter.line(f"{store.name} is on {url} (stop with Ctrl-C)")
            if _on_desktop() if browser is None else browser:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        asyncio.run(run(_app(seen, page), bound, ready))


def _on_desktop() -> bool:
    """Tell whether there is a screen to open a browser on.

    Elsewhere, the browser that is found may be a terminal's.
    """
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stderr.isatty() and bool(screen) and "SSH_CONNECTION" not in os.environ


def _app(seen: View, page: Shell) -> web.Application:
    async def index(_: web.Request) -> web.Response:
        body = page.before + data_script("mode", {"mode": Mode.remote}) + page.after
        policy = {"Content-Security-Policy": f"{page.policy}; frame-ancestors 'none'"}
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=policy)

    async def summary(_: web.Request) -> web.Response:
        return to_json(await _read(seen.summary))

    async def trajectories(request: web.Request) -> web.Response:
        asked = {name: request.query.getall(name) for name in request.query}
        return to_json((await _read(seen.trajectories, asked))._asdict())

    async def download(request: web.Request) -> web.StreamResponse:
        asked = {name: request.query.getall(name) for name in request.query}
        kind = request.match_info["kind"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"trajectories.{kind}"
            await _read(seen.write, asked, kind, path)
            return await _send(request, path)

    async def rejects(_: web.Request) -> web.Response:
        return to_json(await _read(seen.rejects))

    async def mark(request: web.Request) -> web.Response:
        question_id, change = request.match_info["id"], await _change(request)
        return _found(question_id, await _read(seen.mark, question_id, change))

    async def trajectory(request: web.Request) -> web.Response:
        question_id = request.match_info["id"]
        return _found(question_id, await _read(seen.trajectory, question_id))

    app = web.Application(middlewares=[in_json, _to_this_machine, _by_this_page], client_max_size=_LARGEST)
    app.router.add_get("/", index)
    app.router.add_get("/api/summary", summary)
    app.router.add_get("/api/trajectories", trajectories)
    app.router.add_get(f"/api/trajectories.{{kind:{'|'.join(KINDS)}}}", download)
    app.router.add_get("/api/rejects", rejects)
    app.router.add_get("/api/trajectory/{id:.+}", trajectory)
    app.router.add_put("/api/mark/{id:.+}", mark)
    app.on_response_prepare.append(_add_headers)
    return app


def _found(question_id: str, value: object) -> web.Response:
    if value is None:
        raise web.HTTPNotFound(text=f"there is no trajectory of question {question_id}")
    return to_json(value)


async def _change(request: web.Request) -> Change:
    """Read what a request changes of a mark. Another page can send such a body only with our leave, which is never."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send application/json")
    try:
        return Change.model_validate_json(await request.read())
    except ValidationError as error:
        raise web.HTTPBadRequest(text=in_words(error)) from None


async def _read(look: Callable[P, T], *asked: P.args, **named: P.kwargs) -> T:
    """Read from the store in another thread. Raises StoreError where a file cannot be read."""
    try:
        return await asyncio.to_thread(look, *asked, **named)
    except OSError as error:
        raise StoreError(f"the store cannot be read: {error.strerror or error}") from error


async def _send(request: web.Request, path: Path) -> web.StreamResponse:
    """Send a file to keep, piece by piece: it may be large."""
    response = web.StreamResponse(headers={"Content-Disposition": f'attachment; filename="{path.name}"'})
    response.content_type = _TYPES[path.suffix]
    await response.prepare(request)
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            await response.write(piece)
    return response


@web.middleware
async def _to_this_machine(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer requests that name this machine, and no others.

    The host name of a foreign page may resolve to this machine (DNS rebinding).
    """
    host = request.headers.get("Host", "")
    if (host.rpartition(":")[0] or host) not in _NAMES:
        raise web.HTTPForbidden(text=f"ask for http://{HOST}")
    return await handler(request)


@web.middleware
async def _by_this_page(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let no other page change anything. A browser names the page that a change comes from; a program need not."""
    here = f"http://{request.headers.get('Host', '')}"
    if request.method != "GET" and request.headers.get("Origin", here) != here:
        raise web.HTTPForbidden(text="only the page itself may change something")
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)

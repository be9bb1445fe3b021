"""The HTTP server of `view`: the page and what it asks for, read-only, for this machine alone."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing
from typing import ParamSpec, TypeVar

from aiohttp import web

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.page import Mode, Shell, data_script, shell
from stepsearch_data.report.rollouts import NONE, Rollouts
from stepsearch_data.report.view import View
from stepsearch_data.serve.server import Handler, in_json, run, to_json
from stepsearch_data.serve.start import bind

HOST = "127.0.0.1"
_NAMES = {HOST, "localhost", "[::1]"}
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
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

        def ready() -> None:
            reporter.line(f"{store.root} is on {url} (stop with Ctrl-C)")
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

    async def rejects(_: web.Request) -> web.Response:
        return to_json(await _read(seen.rejects))

    async def trajectory(request: web.Request) -> web.Response:
        question_id = request.match_info["id"]
        if found := await _read(seen.trajectory, question_id):
            return to_json(found)
        raise web.HTTPNotFound(text=f"there is no trajectory of question {question_id}")

    app = web.Application(middlewares=[in_json, _to_this_machine])
    app.router.add_get("/", index)
    app.router.add_get("/api/summary", summary)
    app.router.add_get("/api/trajectories", trajectories)
    app.router.add_get("/api/rejects", rejects)
    app.router.add_get("/api/trajectory/{id:.+}", trajectory)
    app.on_response_prepare.append(_add_headers)
    return app


async def _read(look: Callable[P, T], *asked: P.args, **named: P.kwargs) -> T:
    """Read from the store in another thread. Raises StoreError where a file cannot be read."""
    try:
        return await asyncio.to_thread(look, *asked, **named)
    except OSError as error:
        raise StoreError(f"the store cannot be read: {error.strerror or error}") from error


@web.middleware
async def _to_this_machine(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer requests that name this machine, and no others.

    The host name of a foreign page may resolve to this machine (DNS rebinding).
    """
    host = request.headers.get("Host", "")
    if (host.rpartition(":")[0] or host) not in _NAMES:
        raise web.HTTPForbidden(text=f"ask for http://{HOST}")
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)

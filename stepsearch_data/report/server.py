"""The HTTP server of `view`: the page and what it asks for, to this machine alone, to be read and nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import orjson
from aiohttp import web

from stepsearch_data.core.errors import QueryError, StoreError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.page import Mode, Shell, data_script, shell
from stepsearch_data.report.rollouts import NONE, Rollouts
from stepsearch_data.report.view import View
from stepsearch_data.serve import server
from stepsearch_data.serve.app import LARGE, send
from stepsearch_data.serve.start import bind

HOST = "127.0.0.1"
_NAMES = {HOST, "localhost", "[::1]"}
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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

        asyncio.run(_run(_app(seen, page), bound, ready))


def _on_desktop() -> bool:
    """Whether somebody sits before a screen: elsewhere, the browser that is found may be one of the terminal's."""
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stderr.isatty() and bool(screen) and "SSH_CONNECTION" not in os.environ


async def _run(app: web.Application, bound: Any, ready: Callable[[], None]) -> None:
    """Serve until a signal says stop; connections that are idle, or half a request, go in time."""
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=server.GRACE_SECONDS,
        keepalive_timeout=server.IDLE_SECONDS,
        lingering_time=server.LINGERING_SECONDS,
    )
    await server.run_until_stopped(runner, bound, ready)


def _app(seen: View, page: Shell) -> web.Application:
    async def index(_: web.Request) -> web.Response:
        body = page.before + data_script("mode", {"mode": Mode.remote}) + page.after
        policy = {"Content-Security-Policy": f"{page.policy}; frame-ancestors 'none'"}
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=policy)

    async def summary(_: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(seen.summary))

    async def trajectories(request: web.Request) -> web.Response:
        asked = {name: request.query.getall(name) for name in request.query}
        return _json((await asyncio.to_thread(seen.trajectories, asked))._asdict())

    async def trajectory(request: web.Request) -> web.Response:
        question_id = request.match_info["id"]
        found = await asyncio.to_thread(seen.trajectory, question_id)
        return _json(found) if found else _error(404, f"there is no trajectory of question {question_id}")

    app = web.Application(middlewares=[_guarded])
    app.router.add_get("/", index)
    app.router.add_get("/api/summary", summary)
    app.router.add_get("/api/trajectories", trajectories)
    app.router.add_get("/api/trajectory/{id:.+}", trajectory)
    return app


@web.middleware
async def _guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer those who mean this machine; a page from elsewhere may have had its name point here (DNS rebinding)."""
    known = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host")
    response = await _answer(request, handler) if known in _NAMES else _error(403, f"ask for http://{HOST}")
    response.headers.update(_HEADERS)
    if (response.content_length or 0) > LARGE:
        await send(response, request)
    return response


async def _answer(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except QueryError as error:
        return _error(400, error.message)
    except StoreError as error:
        return _error(503, error.message)
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except OSError as error:
        return _error(503, f"the store cannot be read: {error.strerror or error}")
    except Exception:  # noqa: BLE001 - a bug: the server goes on, and the log tells what it was
        _log.exception("a request failed")
        return _error(500, "the request failed; the server's log says why")


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def _error(status: int, detail: str) -> web.Response:
    return _json({"detail": detail}, status)

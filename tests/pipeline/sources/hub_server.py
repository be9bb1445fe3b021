"""A read-only Hugging Face Hub on loopback: what the real clients ask for when they stream a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their sha, oldest first, and the branches that name them."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None  # who does not show it is told that there is no such repository

    def commit(self, files: Files, branch: str = "main") -> str:
        sha = hashlib.sha1(b"".join(name.encode() + data for name, data in sorted(files.items()))).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


class Hub:
    """The server's repositories, and what it was asked."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []

    def repository(self, name: str, token: str | None = None) -> Repository:
        return self.repositories.setdefault(name, Repository(token=token))


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that listens on a free port of 127.0.0.1."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_port}")
        server.hub = hub  # type: ignore[attr-defined]  # how http.server hands state to its handlers
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]  # see running_hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        parts = path.removeprefix("/api").strip("/").split("/")
        repository = hub.repositories.get("/".join(parts[1:3])) if parts[0] == "datasets" else None
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or repository.token not in (None, shown):
            self._fail(404 if shown else 401, "RepoNotFound", "Repository not found")
        else:
            self._dataset("/".join(parts[1:3]), repository, parts[3:])

    def _dataset(self, name: str, repository: Repository, rest: list[str]) -> None:
        action, revision, *inner = rest or ["revision", "main"]
        sha = repository.resolve(revision)
        if sha is None:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files, path = repository.commits[sha], "/".join(inner)
        if action == "revision":
            self._json(_info(name, sha, files))
        elif action == "tree":
            self._json(_tree(files, path, recursive="recursive=true" in self.path.lower()))
        elif action == "resolve" and path in files:
            self._file(sha, files[path])
        else:
            self._fail(404, "EntryNotFound", "Entry not found")

    def _file(self, sha: str, data: bytes) -> None:
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_digest(data)}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked is None:
            self._send(200, data, headers)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1 if last else len(data)]
        content = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._send(206, part, {**headers, "Content-Range": content})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str, message: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _info(name: str, sha: str, files: Files) -> dict[str, Any]:
    return {
        "id": name,
        "sha": sha,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": file} for file in files],
    }


def _tree(files: Files, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = {path: data for path, data in files.items() if path.startswith(prefix)}
    deep = {path for path in inside if "/" in path.removeprefix(prefix)}
    folders = {prefix + path.removeprefix(prefix).split("/")[0] for path in deep}
    return [
        *({"type": "directory", "path": path, "size": 0, "oid": _digest(path.encode())} for path in sorted(folders)),
        *(
            {"type": "file", "path": path, "size": len(data), "oid": _digest(data)}
            for path, data in sorted(inside.items())
            if recursive or path not in deep
        ),
    ]


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()

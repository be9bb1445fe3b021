"""A Hugging Face Hub on loopback: what the real clients ask for when they publish, load, stream and pull.

    with running_hub() as hub:
        hub.users["hf_token"] = User("ann")
        hub.fail("commit", Fault(412))
        ... hub.endpoint ... hub.repositories["ann/data"].head ... hub.requests

Models are `hub.repositories["models/ann/policy"]`. Parquet files and weights go through LFS, to a storage under another
hostname, as on the Hub. A fault is met by the requests of its action, oldest first: whoami, create, validate-yaml,
info, tree, refs, auth-check, paths-info, preupload, commit, tag, batch, upload, verify, resolve, download.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock, Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from huggingface_hub.utils.sha import git_hash

Files = dict[str, bytes]
_LFS = (".parquet", ".safetensors")
_MODELS = "models/"  # before the names of models; those of datasets stand alone
_PAGE = 10  # entries of a tree that are told at once, few so that clients must ask for more


@dataclass(frozen=True)
class User:
    """Who a token belongs to, and what the token may do: write or read."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """What happens instead of the answer.

    `landed`: what was asked is done all the same. `cut`: the connection ends after so many bytes of what is uploaded
    or downloaded; 0 answers nothing. `delay`: seconds until the answer, which then is the usual one if `status` is 0.
    """

    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    landed: bool = False
    cut: int | None = None
    delay: float = 0.0


PAGE = Fault(200, "<!doctype html><title>Sign in to the proxy</title>", {"Content-Type": "text/html"})
LOST = Fault(cut=0)


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


@dataclass
class Repository:
    """Commits by their sha, oldest first, and the branches and tags that name them."""

    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    token: str | None = None  # of whom alone may see it

    @property
    def head(self) -> Files:
        """The files of the newest commit."""
        return self.commits[self.branches["main"]]

    def commit(self, files: Files, branch: str = "main", message: str = "") -> str:
        told = [branch.encode(), str(len(self.commits)).encode(), *(n.encode() + d for n, d in sorted(files.items()))]
        sha = hashlib.sha1(b"".join(told)).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision) or self.tags.get(revision)


class Hub:
    """The server's repositories and users, what it was asked, and what is to go wrong."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.storage = endpoint.replace("127.0.0.1", "localhost") + "/storage"  # another origin, as on the Hub
        self.repositories: dict[str, Repository] = {}
        self.users: dict[str, User] = {}
        self.objects: Files = {}  # by SHA-256
        self.requests: list[str] = []
        self.lock = RLock()
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)

    def repository(self, name: str, token: str | None = None) -> Repository:
        """The repository of that name, made where there is none."""
        return self.repositories.setdefault(name, Repository(token=token))

    def fail(self, action: str, fault: Fault, times: int = 1) -> None:
        """Have the next requests of an action meet a fault."""
        self._faults[action] += [fault] * times

    def heal(self) -> None:
        """Forget the faults that were not met."""
        self._faults.clear()

    def fault(self, action: str) -> Fault | None:
        with self.lock:
            return self._faults[action].popleft() if self._faults[action] else None


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


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.reply = Reply(status, json.dumps({"error": message}).encode(), {k: v for k, v in headers.items() if v})


class _Handler(BaseHTTPRequestHandler):
    """Finds the action of a request, does it under one lock, and lets faults have their way."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.hub: Hub = self.server.hub  # type: ignore[attr-defined]  # see running_hub
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.hub.requests.append(f"{self.command} {unquote(url.path)}")
        action = self._action()
        fault = self.hub.fault(action)
        if fault and fault.cut is not None and self.command == "PUT":
            self.rfile.read(fault.cut)
            self.close_connection = True
            return
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault and not fault.landed and fault.status:
            self._send(self._faulty(fault))
            return
        self._answer(action, fault)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the base class looks for these names

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, action: str, fault: Fault | None) -> None:
        if fault and fault.cut == 0 and not fault.landed:
            self.close_connection = True
            return
        try:
            with self.hub.lock:
                reply: Reply = getattr(self, "_" + action.replace("-", "_"))()
        except _Refused as refused:
            reply = refused.reply
        if fault is None:
            self._send(reply)
            return
        time.sleep(fault.delay)
        self._send(self._faulty(fault) if fault.status else reply, fault.cut)

    def _faulty(self, fault: Fault) -> Reply:
        return Reply(fault.status, fault.body.encode(), fault.headers)

    def _send(self, reply: Reply, cut: int | None = None) -> None:
        if cut == 0:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[:cut])
            self.close_connection = self.close_connection or cut is not None

    def _action(self) -> str:
        """The action's name. What follows the repository's name stays in `parts`, the name goes to `name`."""
        if self.parts[0] == "storage":
            return "upload" if self.command == "PUT" else "download"
        if self.parts[:2] in (["api", "whoami-v2"], ["api", "validate-yaml"]):
            return self.parts[1].removesuffix("-v2")
        if self.parts[:3] == ["api", "repos", "create"]:
            return "create"
        rest = self.parts[1:] if self.parts[0] == "api" else self.parts
        if rest[0] not in {"datasets", "models"}:  # the files of models have no such prefix
            rest = ["models", *rest]
        kind = _MODELS if rest[0] == "models" else ""
        self.name, self.parts = kind + "/".join(rest[1:3]).removesuffix(".git"), rest[3:]
        if self.parts[-1:] == ["batch"]:
            return "batch"
        action = self.parts.pop(0) if self.parts else "info"
        known = action.replace("revision", "info")
        return known if hasattr(self, "_" + known.replace("-", "_")) else "nothing"

    # Who asks, and for what

    def _user(self) -> User | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise _Refused(401, message="Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _repository(self, *, write: bool = False) -> Repository:
        user = self._user()
        repository = self.hub.repositories.get(self.name)
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or repository.token not in (None, shown):
            raise _Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if write:
            self._check_rights(user, self.name.removeprefix(_MODELS).split("/")[0])
        return repository

    def _check_rights(self, user: User | None, namespace: str) -> None:
        if user is None:
            raise _Refused(401, message="Authentication required")
        if user.role == "read":
            raise _Refused(403, message="Forbidden: this token has no write access")
        if namespace not in (user.name, *user.orgs):
            raise _Refused(403, message=f"Forbidden: you do not have the rights to write to {namespace}")

    def _files(self) -> tuple[str, Files]:
        repository = self._repository()
        revision = self.parts[0] if self.parts else "main"
        sha = repository.resolve(revision)
        if sha is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repository.commits[sha]

    # Actions

    def _nothing(self) -> Reply:
        raise _Refused(404, "EntryNotFound", "Entry not found")

    def _whoami(self) -> Reply:
        user = self._user()
        if user is None:
            raise _Refused(401, message="Authentication required")
        token = {"displayName": "token", "role": user.role}
        orgs = [{"type": "org", "name": name} for name in user.orgs]
        return _json({"type": "user", "name": user.name, "orgs": orgs, "auth": {"accessToken": token}})

    def _validate_yaml(self) -> Reply:
        return _json({"errors": [], "warnings": []})

    def _create(self) -> Reply:
        asked, user = json.loads(self.body), self._user()
        namespace = asked.get("organization") or (user.name if user else "")
        self._check_rights(user, namespace)
        kind = "" if asked.get("type") == "dataset" else _MODELS
        name = f"{kind}{namespace}/{asked['name']}"
        url = {"url": f"{self.hub.endpoint}/{'' if kind else 'datasets/'}{name.removeprefix(_MODELS)}"}
        if name in self.hub.repositories:
            return _json({**url, "error": "You already created this repo"}, 409)
        shown = self.headers["Authorization"].removeprefix("Bearer ")
        made = self.hub.repository(name, shown if asked.get("visibility") == "private" else None)
        made.commit({".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"}, message="initial commit")
        return _json(url)

    def _info(self) -> Reply:
        sha, files = self._files()
        info = {"id": self.name.removeprefix(_MODELS), "sha": sha, "private": self._repository().token is not None}
        more = {"tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": path} for path in files]}
        return _json({**info, **more})

    def _tree(self) -> Reply:
        _, files = self._files()
        entries = _tree(files, "/".join(self.parts[1:]), recursive=self.query.get("recursive", [""])[0] in "Truetrue1")
        start = int(self.query.get("cursor", ["0"])[0])
        query = {**{key: value[0] for key, value in self.query.items()}, "cursor": str(start + _PAGE)}
        asked = "&".join(f"{key}={quote(value)}" for key, value in query.items())
        link = f'<{self.hub.endpoint}{urlsplit(self.path).path}?{asked}>; rel="next"'
        return _json(entries[start : start + _PAGE])._replace(
            headers={"Content-Type": "application/json", **({"Link": link} if start + _PAGE < len(entries) else {})}
        )

    def _paths_info(self) -> Reply:
        _, files = self._files()
        sent = self.body.decode()
        paths = parse_qs(sent)["paths"] if "paths=" in sent else json.loads(sent)["paths"]
        return _json([entry for entry in _tree(files, "", recursive=True) if entry["path"] in paths])

    def _refs(self) -> Reply:
        found = self._repository()
        listed = {"branches": ("heads", found.branches), "tags": ("tags", found.tags)}
        refs = {
            key: [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in named.items()]
            for key, (kind, named) in listed.items()
        }
        return _json({**refs, "converts": []})

    def _auth_check(self) -> Reply:
        self._repository(write=bool(self.parts))
        return _json({})

    def _preupload(self) -> Reply:
        self._repository(write=True)
        _, files = self._files()
        asked = [file["path"] for file in json.loads(self.body)["files"]]
        told = [{"path": path, "uploadMode": "lfs" if path.endswith(_LFS) else "regular"} for path in asked]
        known = {entry["path"]: entry for entry in _tree(files, "", recursive=True)}
        oids = {path: entry.get("lfs", entry)["oid"] for path, entry in known.items()}
        return _json({"files": [{**one, "shouldIgnore": False, "oid": oids.get(one["path"])} for one in told]})

    def _batch(self) -> Reply:
        self._repository(write=True)
        verify = {"href": f"{self.hub.endpoint}/api/{'' if _MODELS in self.name else 'datasets/'}{self.name}/verify"}
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.storage}/{wanted['oid']}?signature=s3cr3t"}, "verify": verify}
            objects.append({**wanted, **({} if wanted["oid"] in self.hub.objects else {"actions": upload})})
        return _json({"transfer": "basic", "objects": objects})

    def _upload(self) -> Reply:
        assert "Authorization" not in self.headers, "the token is not for the storage"
        if hashlib.sha256(self.body).hexdigest() != self.parts[1]:
            raise _Refused(400, message="Bad digest")
        self.hub.objects[self.parts[1]] = self.body
        return Reply()

    def _verify(self) -> Reply:
        wanted = json.loads(self.body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise _Refused(404, message="Object was not uploaded")
        return _json({})

    def _commit(self) -> Reply:
        repository = self._repository(write=True)
        branch, lines = self.parts[0], [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.branches[branch]):
            raise _Refused(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[repository.branches[branch]])
        for line in lines[1:]:
            self._apply(line["key"], line["value"], files)
        sha = repository.commit(files, branch, header["summary"])
        place = self.name.removeprefix(_MODELS) if _MODELS in self.name else f"datasets/{self.name}"
        return _json({"commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{place}/commit/{sha}"})

    def _apply(self, kind: str, change: dict[str, Any], files: Files) -> None:
        path = change["path"]
        if kind == "file":
            files[path] = base64.b64decode(change["content"])
        elif kind == "lfsFile" and change["oid"] in self.hub.objects:
            files[path] = self.hub.objects[change["oid"]]
        elif kind == "deletedFile" and path in files:
            del files[path]
        else:
            raise _Refused(400, message=f"cannot do {kind} of {path}")

    def _tag(self) -> Reply:
        repository = self._repository(write=True)
        if self.command == "DELETE":
            repository.tags.pop(self.parts[0])
            return _json({})
        sha, _ = self._files()
        name = json.loads(self.body)["tag"]
        if name in repository.tags:
            raise _Refused(409, message=f"Tag reference exists already: {name}")
        repository.tags[name] = sha
        return _json({})

    def _resolve(self) -> Reply:
        sha, files = self._files()
        path = "/".join(self.parts[1:])
        if path not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        data = files[path]
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes", "ETag": f'"{git_hash(data)}"'}
        if not path.endswith(_LFS):
            return self._ranged(data, headers)
        oid = hashlib.sha256(data).hexdigest()
        self.hub.objects[oid] = data
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{oid}"'}
        return Reply(302, b"", {**headers, **linked, "Location": f"{self.hub.storage}/{oid}?signature=s3cr3t"})

    def _download(self) -> Reply:
        assert "Authorization" not in self.headers, "the token is not for the storage"
        return self._ranged(self.hub.objects[self.parts[1]], {"ETag": f'"{self.parts[1]}"', "Accept-Ranges": "bytes"})

    def _ranged(self, data: bytes, headers: dict[str, str]) -> Reply:
        asked = self.headers.get("Range")
        if asked is None:
            return Reply(200, data, headers)
        first, last = asked.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1 if last else len(data)]
        content = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return Reply(206, part, {**headers, "Content-Range": content})


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _tree(files: Files, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = sorted(path for path in files if path.startswith(prefix))
    deep = {path for path in inside if "/" in path.removeprefix(prefix)}
    folders = {path[: path.index("/", len(prefix))] for path in deep}
    return [
        *({"type": "directory", "path": path, "size": 0, "oid": git_hash(path.encode())} for path in sorted(folders)),
        *(_entry(path, files[path]) for path in inside if recursive or path not in deep),
    ]


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
    if not path.endswith(_LFS):
        return entry
    pointer = f"oid sha256:{hashlib.sha256(data).hexdigest()}"
    stored = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return {**entry, "oid": git_hash(pointer.encode()), "lfs": stored}

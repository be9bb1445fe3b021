"""The Batch API of an `LlmServer`: files, and batches that end as told.

    with LlmServer(answer) as server: ...   # after api = BatchApi(server)

A batch runs until `end` says how it ends, and then answers its first `answered` requests (all by
default) as the server's `answer` would: a usual reply goes to the output file, a `Fault` to the error file.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aiohttp import web

from tests.llm_server import LlmServer, completion


class BatchApi:
    """State and routes. `looks` counts the polls; with `lost`, that many batches start whose answer is lost."""

    def __init__(self, server: LlmServer) -> None:
        self._server = server
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.end: str | None = "completed"
        self.answered: int | None = None
        self.looks = self.lost = 0
        server.more_routes += [
            web.post("/v1/files", self._upload),
            web.get("/v1/files/{name}/content", self._content),
            web.post("/v1/batches", self._start),
            web.get("/v1/batches", self._list),
            web.get("/v1/batches/{name}", self._look),
        ]

    def requests(self, batch: str) -> list[dict[str, Any]]:
        """The requests of a batch, as they were uploaded."""
        return [json.loads(line) for line in self.files[self.batches[batch]["input_file_id"]].splitlines()]

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        name = self._add(upload.file.read())
        return web.json_response({"id": name, "object": "file", "purpose": "batch"})

    async def _content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["name"]])

    async def _start(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        assert wanted["endpoint"] == "/v1/chat/completions"
        assert wanted["completion_window"] == "24h"
        name = f"batch_{len(self.batches) + 1}"
        self.batches[name] = {"id": name, "object": "batch", "status": "validating", **wanted}
        if self.lost:
            self.lost -= 1
            return web.Response(status=502, text="bad gateway")
        return web.json_response(self.batches[name])

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": list(self.batches.values())})

    async def _look(self, request: web.Request) -> web.Response:
        self.looks += 1
        batch = self.batches.get(request.match_info["name"])
        if batch is None:
            return web.json_response({"error": {"message": "No such batch"}}, status=404)
        if batch["status"] == "validating":
            batch["status"] = "in_progress"
        elif batch["status"] == "in_progress" and self.end:
            self._finish(batch)
        return web.json_response(batch)

    def _finish(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.end
        if self.end == "failed":
            batch["errors"] = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}
            return
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        requests = self.requests(batch["id"])
        for request in requests[: self.answered]:
            row = self._answer(request)
            (good if row["response"]["status_code"] == 200 else bad).append(row)
        if self.answered is not None:
            expired = {"code": "batch_expired", "message": "This request could not be executed in time."}
            bad += [
                {"custom_id": request["custom_id"], "response": None, "error": expired}
                for request in requests[self.answered :]
            ]
        batch["request_counts"] = {"total": len(requests), "completed": len(good), "failed": len(bad)}
        batch["output_file_id"] = self._write(good)
        batch["error_file_id"] = self._write(bad)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self._server.answer(request["body"])
        if isinstance(answer, str):
            answer = completion(answer)
        status, body = (200, answer) if isinstance(answer, dict) else (answer.status, json.loads(answer.body))
        response = {"status_code": status, "request_id": "r", "body": body}
        return {"id": "batch_req", "custom_id": request["custom_id"], "response": response, "error": None}

    def _write(self, rows: list[dict[str, Any]]) -> str | None:
        return self._add("".join(json.dumps(row) + "\n" for row in rows).encode()) if rows else None

    def _add(self, content: bytes) -> str:
        name = f"file-{hashlib.sha256(content).hexdigest()[:12]}"
        self.files[name] = content
        return name

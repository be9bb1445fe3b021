"""The Batch API of an `LlmServer`: files, and batches that end as told.

    with LlmServer(answer) as server: ...   # after api = BatchApi(server)

A batch runs until `end` says how it ends, and then answers its first `answered` requests (all by
default) as the server's `answer` would: a usual reply goes to the output file, a `Fault` to the error file.
"""

from __future__ import annotations

import hashlib
import json
from email import message_from_bytes
from typing import Any

from tests.fake import Asked, Fault, fault
from tests.llm_server import LlmServer, completion


class BatchApi:
    """`looks` counts the polls; with `lost`, that many batches start whose answer is lost."""

    def __init__(self, server: LlmServer) -> None:
        self._server = server
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.end: str | None = "completed"
        self.answered: int | None = None
        self.looks = self.lost = 0
        server.more.append(self._handle)

    def requests(self, batch: str) -> list[dict[str, Any]]:
        """The requests of a batch, as they were uploaded."""
        return [json.loads(line) for line in self.files[self.batches[batch]["input_file_id"]].splitlines()]

    def _handle(self, asked: Asked) -> Any:
        match asked.method, asked.path.split("/")[2:]:
            case "POST", ["files"]:
                return self._upload(asked)
            case "GET", ["files", name, "content"]:
                return Fault(body=self.files[name])
            case "POST", ["batches"]:
                return self._start(asked.body)
            case "GET", ["batches"]:
                return {"object": "list", "data": list(self.batches.values())}
            case "GET", ["batches", name]:
                return self._look(name)
        return None

    def _upload(self, asked: Asked) -> dict[str, Any]:
        form = message_from_bytes(f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode() + asked.body)
        fields = {part.get_param("name", header="content-disposition"): part for part in form.walk()}
        assert fields["purpose"].get_payload() == "batch"
        content = fields["file"].get_payload(decode=True)
        assert isinstance(content, bytes)
        return {"id": self._add(content), "object": "file", "purpose": "batch"}

    def _start(self, wanted: dict[str, Any]) -> dict[str, Any] | Fault:
        assert wanted["endpoint"] == "/v1/chat/completions"
        assert wanted["completion_window"] == "24h"
        name = f"batch_{len(self.batches) + 1}"
        self.batches[name] = {"id": name, "object": "batch", "status": "validating", **wanted}
        if self.lost:
            self.lost -= 1
            return Fault(502, b"bad gateway")
        return self.batches[name]

    def _look(self, name: str) -> dict[str, Any] | Fault:
        self.looks += 1
        batch = self.batches.get(name)
        if batch is None:
            return fault(404, {"error": {"message": "No such batch"}})
        if batch["status"] == "validating":
            batch["status"] = "in_progress"
        elif batch["status"] == "in_progress" and self.end:
            self._finish(batch)
        return batch

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

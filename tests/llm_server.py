"""An OpenAI-compatible server that misbehaves on command.

    with LlmServer(answer) as server: ... server.url ... server.requests

`answer` gets the request's JSON and returns the reply's text, or a `Fault`. Run as a program, it is
the mock of the benchmarks: fixed latency, rate caps, and faults by share.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fake import Asked, FakeServer, Fault, Handler, fault


def completion(text: str, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """The body of a usual reply."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }


def error(status: int, message: str, **headers: str) -> Fault:
    """An error as OpenAI words it."""
    return fault(status, {"error": {"message": message, "type": "test"}}, **headers)


Answer = Callable[[dict[str, Any]], "str | Fault | dict[str, Any]"]


class OpenAiServer(FakeServer):
    """An API under `/v1`. When `key` is set, calls without it get 401. Bodies of calls to `kept` are the requests."""

    requests: list[dict[str, Any]]
    kept: tuple[str, ...] = ()

    def __init__(self, handler: Handler, delay: float = 0.0) -> None:
        super().__init__(lambda asked: self._refusal(asked) or handler(asked), "/v1", delay)
        self.key = ""

    def record(self, asked: Asked) -> None:
        """Keep the body and the headers."""
        if asked.path.removeprefix("/v1/") in self.kept:
            self.requests.append(asked.body)
            self.headers.append(asked.headers)

    def _refusal(self, asked: Asked) -> Fault | None:
        given = asked.headers.get("authorization", "").removeprefix("Bearer ")
        return error(401, f"Incorrect API key provided: {given}") if self.key not in ("", given) else None


class LlmServer(OpenAiServer):
    """Chats and completions. Requests are kept, unless `keep` is false."""

    kept: tuple[str, ...] = ("chat/completions", "completions")

    def __init__(self, answer: Answer, delay: float = 0.0, *, keep: bool = True) -> None:
        super().__init__(self._say, delay)
        self.answer = answer
        self.models: list[str] | Fault = ["mock"]
        self.more: list[Handler] = []  # what answers other paths; None where a path is not its own
        self.kept = self.kept if keep else ()

    def _say(self, asked: Asked) -> Any:
        if asked.path == "/v1/models":
            if isinstance(self.models, Fault):
                return self.models
            return {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        if asked.path in ("/v1/chat/completions", "/v1/completions"):
            said = self.answer(asked.body)
            if not isinstance(said, str):
                return said
            return completion(said) if "chat" in asked.path else {"choices": [{"text": said, "finish_reason": "stop"}]}
        answers = (api(asked) for api in self.more)
        return next((found for found in answers if found is not None), fault(404, {"detail": "Not Found"}))


class Mock:
    """Answers of the benchmarks: shares of slow, failing and truncated replies, and a cap a second.

    `--slow-share 0.05` means every twentieth call, so that two clients meet the same number of them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._seen: set[int] = set()
        self._second, self._tokens = 0, float(options.cap)
        self._refilled = time.monotonic()
        self.stats = {"calls": 0, "repeated": 0, "throttled": 0}

    def __call__(self, request: dict[str, Any]) -> str | Fault:
        """The next answer."""
        self.stats["calls"] += 1
        if self._options.cap and not self._admits():
            self.stats["throttled"] += 1
            return error(429, "slow down", **{"Retry-After": f"{self._options.retry_after:g}"})
        asked = hash(json.dumps(request["messages"]))
        self.stats["repeated"] += asked in self._seen
        self._seen.add(asked)
        # letters before the digits: a bare number may happen to be an answer that must not leak
        text = json.dumps({"queries": [f"query c{self.stats['calls']} {n}" for n in range(4)]})
        if self._is_one_of(self._options.fail_share, 1 / 3):
            return error(500, "internal error")
        if self._is_one_of(self._options.truncate_share, 2 / 3):
            return text[: len(text) // 2]
        if self._is_one_of(self._options.slow_share, 0.0):
            return Fault(body=json.dumps(completion(text)).encode(), delay=self._options.slow)
        return text

    def _admits(self) -> bool:
        """Count a call against the cap: a new allowance every second, or one that refills evenly (`--bucket`)."""
        cap, now = self._options.cap, time.monotonic()
        if self._options.bucket:
            self._tokens = min(cap, self._tokens + (now - self._refilled) * cap)
        elif int(now) != self._second:
            self._second, self._tokens = int(now), cap
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _is_one_of(self, share: float, phase: float) -> bool:
        """Whether this call is one of the share; phases keep the kinds apart."""
        count = self.stats["calls"]
        return int(count * share + phase) > int((count - 1) * share + phase)


def main() -> None:
    """Serve until killed; GET /stats tells how many calls came, came again, and were refused."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--slow-share", type=float, default=0.0, help="share of calls that take --slow seconds")
    parser.add_argument("--slow", type=float, default=1.0)
    parser.add_argument("--fail-share", type=float, default=0.0, help="share of calls that get a 500")
    parser.add_argument("--truncate-share", type=float, default=0.0, help="share of replies that are cut JSON")
    parser.add_argument("--cap", type=int, default=0, help="requests a second; above it 429")
    parser.add_argument("--bucket", action="store_true", help="the cap refills evenly, not once a second")
    parser.add_argument("--retry-after", type=float, default=1.0, help="seconds that a 429 asks to wait")
    options = parser.parse_args()
    mock = Mock(options)
    server = LlmServer(mock, options.delay, keep=False)
    server.more.append(lambda asked: mock.stats if asked.path == "/stats" else None)
    web.run_app(server.application(), host="127.0.0.1", port=options.port, access_log=None, print=None)


if __name__ == "__main__":
    main()

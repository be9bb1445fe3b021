"""The ChatModel of a build: replay first, then the server, at its speed, within the budget."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from stepsearch_data.core.errors import ConfigError, ProviderError, RowRejected
from stepsearch_data.llm.batch import Batches, Everyone, Function
from stepsearch_data.llm.chat import ChatModel, Message, Reply, Request
from stepsearch_data.llm.endpoint import Endpoint
from stepsearch_data.llm.money import BATCH_SHARE, Budget, price_of, tokens_in
from stepsearch_data.llm.replay import Replay
from stepsearch_data.llm.settings import KEY, OPENAI, LlmSettings
from stepsearch_data.remote.governor import Governor
from stepsearch_data.remote.http import TransientError
from stepsearch_data.remote.secrets import find_key

Record = dict[str, Any]

_GRACE = 30.0  # seconds that calls in flight get when the build stops: they are paid for
_HARMLESS = Message("user", "Say OK.")


class Llm:
    """See `ChatModel`. `record` is called once for every reply, with what it cost."""

    def __init__(
        self,
        settings: LlmSettings,
        stage: str,
        budget: Budget | None = None,
        record: Callable[[Record], None] | None = None,
    ) -> None:
        key = find_key(KEY)
        if not key and settings.base_url == OPENAI:
            raise ConfigError(
                "no key for the OpenAI API", "set OPENAI_API_KEY, or OPENAI_BASE_URL to a server that needs none"
            )
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.budget = budget or Budget(settings.max_cost, settings.max_tokens_total)
        self.governor = Governor(settings.max_concurrency, settings.rpm, settings.tpm)
        self._stage = stage
        self._record = record
        self._endpoint = Endpoint(settings.base_url, key, settings.timeout, settings.max_concurrency)
        self._replay = Replay(settings.replay)
        self._asked: dict[str, asyncio.Future[Reply]] = {}
        self._calls: set[asyncio.Task[Reply]] = set()
        self._open = False
        self._stand_in: ChatModel | None = None
        self._failing_since: float | None = None
        self._begun = self._last_success = time.monotonic()

    async def complete(self, request: Request) -> Reply:
        """See `ChatModel.complete`."""
        return await (self._stand_in.complete(request) if self._stand_in else self.answer(request))

    async def fill(self, function: Function, everyone: Everyone, tell: Callable[[str], None]) -> None:
        """In batch mode, have the Batch API answer what the replay cache cannot; see `Batches`."""
        if self.settings.mode == "online":
            return
        await self._connect()
        self._stand_in = batches = Batches(self, self._endpoint, self._replay, tell)
        try:
            await batches.fill(function, everyone)
        finally:
            self._stand_in = None

    def keep(self, model: str, digest: str, reply: Reply) -> None:
        """Account for a reply that a batch brought, once, and put it into the cache."""
        if self._replay.get(digest) is None:
            self._account(Request(model, ()), reply, 1, batch=True)
            self._replay.put(digest, reply)

    async def answer(self, request: Request) -> Reply:
        """The reply from the cache or from the server."""
        if self.settings.max_cost is not None and price_of(request.model, self.settings.prices) is None:
            raise ConfigError(
                f"--max-cost needs a price, and none is known for {request.model}",
                f"set one: --set llm.prices='{{\"{request.model}\" = [0.15, 0.60]}}', or use --max-tokens-total",
            )
        digest = request.digest(self._endpoint.base_url)
        if digest in self._asked:  # two rows ask the same: one call
            return await asyncio.shield(self._asked[digest])
        cached = self._replay.get(digest)
        if cached:
            self._note(request, cached, 0.0)
            return cached
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[digest] = answer
        try:
            reply = await self._pay(request, digest)
        except BaseException as error:
            answer.set_exception(error)
            answer.exception()  # seen, even if nobody else waits
            raise
        else:
            answer.set_result(reply)
            return reply
        finally:
            del self._asked[digest]

    async def close(self) -> None:
        """Wait for the calls in flight, commit what was paid for, and drop the connections."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=_GRACE)
            for call in late:
                call.cancel()
        try:
            self._replay.close()
        finally:
            if self._open:
                await self._endpoint.__aexit__(None, None, None)

    def describe(self) -> str:
        """Where the calls stand, for a progress line."""
        used = self.budget.usage.prompt_tokens + self.budget.usage.completion_tokens
        rate = self.counts["calls"] / max(1e-9, time.monotonic() - self._begun)
        parts = [f"{rate:.0f} calls/s", f"{self.governor.in_flight} in flight", f"{self.counts['cached']:,} cached"]
        return " · ".join([*parts, f"{used:,} tokens", f"${self.budget.cost:.2f}"])

    async def _connect(self) -> None:
        if not self._open:
            self._open = True
            self._last_success = time.monotonic()
            await self._endpoint.__aenter__()

    async def _pay(self, request: Request, digest: str) -> Reply:
        await self._connect()
        begun = time.monotonic()
        try:
            try:
                return await self._send(request, digest, 1)
            except TransientError as error:
                return await self._retry(request, digest, error)
        except TransientError as error:
            if self._last_success < begun and not await self._alive(request.model):  # the server, not the row
                raise self._gone(error) from error
            raise RowRejected(f"the server failed {self.settings.max_attempts} times: {error}") from error

    async def _retry(self, request: Request, digest: str, first: TransientError) -> Reply:
        """What comes after a failed first attempt. Calls that succeed at once are spared tenacity's cost."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(self.settings.max_attempts),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            reraise=True,
        ):
            with attempt:
                number = attempt.retry_state.attempt_number
                if number == 1:
                    raise first
                return await self._send(request, digest, number)
        raise AssertionError("tenacity raises the last error")

    async def _send(self, request: Request, digest: str, attempt: int) -> Reply:
        """One attempt. A wait that the server asks for is part of it."""
        tokens = tokens_in(*(message.content for message in request.messages)) + request.max_tokens // 4
        while True:
            await self.governor.acquire(tokens)
            try:
                self.budget.check(self.governor.in_flight)
                call = asyncio.create_task(self._call(request, digest, attempt))
                self._calls.add(call)
                call.add_done_callback(self._called)
                reply = await asyncio.shield(call)
            except TransientError as error:
                self.counts["failures"] += 1
                if await self._judge(error, request.model):
                    raise
            else:
                self._last_success, self._failing_since = time.monotonic(), None
                self.governor.succeeded(reply.latency)
                return reply
            finally:
                self.governor.release()

    async def _call(self, request: Request, digest: str, attempt: int) -> Reply:
        """Send, and keep the reply. A task of its own: what was sent is paid for, even when the build stops."""
        reply = self._account(request, await self._endpoint.send(request), attempt)
        self._replay.put(digest, reply)
        return reply

    def _called(self, call: asyncio.Task[Reply]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # seen, even if nobody waits for it any more

    async def _judge(self, error: TransientError, model: str) -> bool:
        """Slow down after a refusal; stop when nothing has worked for too long. Whether it costs an attempt."""
        if error.throttled or error.retry_after is not None:
            self.counts["throttled"] += 1
            self.governor.throttled(error.retry_after)
        self._failing_since = self._failing_since or time.monotonic()
        lasting = time.monotonic() - self._failing_since > self.settings.patience
        if (error.retry_after or 0.0) > self.settings.patience or (lasting and not await self._alive(model)):
            raise self._gone(error) from error
        if lasting:
            self._failing_since = None
        return lasting or error.retry_after is None

    async def _alive(self, model: str) -> bool:
        """Whether the server answers something harmless: then it is the row that it fails on."""
        try:
            reply = await self._endpoint.send(Request(model, (_HARMLESS,), max_tokens=16))
        except TransientError:
            return False
        except RowRejected:
            return True
        self.budget.pay(reply.usage, price_of(model, self.settings.prices))
        return True

    def _gone(self, error: TransientError) -> ProviderError:
        return ProviderError(
            f"{self._endpoint.shown} does not answer: {error}",
            "check the server, then run the same command: what was paid is kept",
        )

    def _account(self, request: Request, reply: Reply, attempts: int, *, batch: bool = False) -> Reply:
        usage = reply.usage
        price = price_of(request.model, self.settings.prices)
        cost = self.budget.pay(usage, price, BATCH_SHARE if batch else 1.0)
        paid = Reply(reply.text, reply.finish_reason, usage, reply.latency, attempts)
        self._note(request, paid, cost, batch=batch)
        return paid

    def _note(self, request: Request, reply: Reply, cost: float, *, batch: bool = False) -> None:
        self.counts["cached" if reply.cached else "calls"] += 1
        if self._record:
            self._record(
                {
                    "stage": self._stage,
                    "model": request.model,
                    "prompt_tokens": reply.usage.prompt_tokens,
                    "completion_tokens": reply.usage.completion_tokens,
                    "latency": round(reply.latency, 4),
                    "cost": cost,
                    "attempts": reply.attempts,
                    "cached": reply.cached,
                    "batch": batch,
                    "finish_reason": reply.finish_reason,
                    "answered_at": datetime.now(UTC).isoformat(timespec="seconds"),
                }
            )

"""The ChatModel of a build: replay first, then the server, at its speed, within the budget."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stepsearch_data.core.errors import ConfigError, ProviderError, RowRejected
from stepsearch_data.llm.chat import ChatModel, Message, Reply, Request
from stepsearch_data.llm.endpoint import Endpoint
from stepsearch_data.llm.money import BATCH_SHARE, Budget, price_of, tokens_in
from stepsearch_data.llm.replay import Replay
from stepsearch_data.llm.settings import KEY, OPENAI, LlmSettings
from stepsearch_data.remote.client import Client
from stepsearch_data.remote.governor import Governor
from stepsearch_data.remote.http import TransientError
from stepsearch_data.remote.secrets import find_key

if TYPE_CHECKING:
    import httpx2

Record = dict[str, Any]

_HARMLESS = Message("user", "Say OK.")


class Llm:
    """See `ChatModel`. `record` is called once for every reply, with what it cost.

    While there is a `substitute`, such as `Batches`, it completes the requests.
    """

    def __init__(
        self,
        settings: LlmSettings,
        stage: str,
        budget: Budget | None = None,
        record: Callable[[Record], None] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        if not find_key(KEY) and settings.base_url == OPENAI:
            raise ConfigError(
                "no key for the OpenAI API", "set OPENAI_API_KEY, or OPENAI_BASE_URL to a server that needs none"
            )
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.budget = budget or Budget(settings.max_cost, settings.max_tokens_total)
        self.governor = Governor(settings.max_concurrency, settings.rpm, settings.tpm)
        self._stage = stage
        self._record = record
        self.endpoint = Endpoint(settings, settings.max_concurrency, transport)
        self._client = Client(self.governor, self, settings.max_attempts)
        self.replay = Replay(settings.replay)
        self.substitute: ChatModel | None = None
        self._asked: dict[str, asyncio.Future[Reply]] = {}
        self._failing_since: float | None = None
        self._model = ""  # the one that was asked last
        self._begun = self._last_success = time.monotonic()

    async def complete(self, request: Request) -> Reply:
        """See `ChatModel.complete`."""
        return await (self.substitute.complete(request) if self.substitute else self.answer(request))

    def keep(self, model: str, digest: str, reply: Reply) -> None:
        """Account for a reply that a batch brought, once, and put it into the cache."""
        if self.replay.get(digest) is None:
            self.replay.put(digest, reply)
            self._account(Request(model, ()), reply, 1, batch=True)

    async def answer(self, request: Request) -> Reply:
        """Return the reply from the cache or from the server."""
        if self.settings.max_cost is not None and price_of(request.model, self.settings.prices) is None:
            raise ConfigError(
                f"--max-cost needs a price, and none is known for {request.model}",
                f"set one: --set llm.prices='{{\"{request.model}\" = [0.15, 0.60]}}', or use --max-tokens-total",
            )
        digest = request.digest(self.endpoint.base_url)
        if digest in self._asked:  # two rows ask the same: one call
            return await asyncio.shield(self._asked[digest])
        cached = self.replay.get(digest)
        if cached:
            self._note(request, cached, 0.0)
            return cached
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[digest] = answer
        try:
            answer.set_result(await self._pay(request, digest))
        except BaseException as error:  # noqa: BLE001 - raised below, and to all who wait
            answer.set_exception(error)
        finally:
            del self._asked[digest]
        return answer.result()

    async def close(self) -> None:
        """Wait for the calls in flight, commit what was paid for, and drop the connections."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.endpoint.aclose)
            stack.callback(self.replay.close)
            await self._client.close()

    def describe(self) -> str:
        """Describe the state of the calls, for a progress line."""
        rate = self.counts["calls"] / max(1e-9, time.monotonic() - self._begun)
        parts = [f"{rate:.0f} calls/s", f"{self.governor.in_flight} in flight", f"{self.counts['cached']:,} cached"]
        return " · ".join([*parts, f"{self.budget.usage.total:,} tokens", f"${self.budget.cost:.2f}"])

    def check(self) -> None:
        """See `Judge.check`. Raises BudgetError."""
        self.budget.check(self.governor.in_flight)

    async def failed(self, error: TransientError) -> bool:
        """See `Judge.failed`. Slow down after a refusal; stop when nothing has worked for too long."""
        if error.throttled or error.retry_after is not None:
            self.governor.throttled(error.retry_after)
        self._failing_since = self._failing_since or time.monotonic()
        lasting = time.monotonic() - self._failing_since > self.settings.patience
        if (error.retry_after or 0.0) > self.settings.patience or (lasting and not await self._alive()):
            raise self._gone(error) from error
        if lasting:
            self._failing_since = None
        return lasting or error.retry_after is None

    def succeeded(self, latency: float) -> None:
        """See `Judge.succeeded`."""
        self._last_success, self._failing_since = time.monotonic(), None
        self.governor.succeeded(latency)

    async def _pay(self, request: Request, digest: str) -> Reply:
        begun = time.monotonic()
        self._model = request.model
        tokens = tokens_in(*(message.content for message in request.messages)) + request.max_tokens // 4
        try:
            return await self._client.send(lambda attempt: self._call(request, digest, attempt), tokens)
        except TransientError as error:
            if self._last_success < begun and not await self._alive():  # the server, not the row
                raise self._gone(error) from error
            raise RowRejected(f"the server failed {self.settings.max_attempts} times: {error}") from error

    async def _call(self, request: Request, digest: str, attempt: int) -> Reply:
        """Send, and keep the reply."""
        reply = await self.endpoint.send(request)
        self.replay.put(digest, reply)  # before its record, which a full disk may refuse
        return self._account(request, reply, attempt)

    async def _alive(self) -> bool:
        """Tell whether the server answers a harmless request: then it is the row that it fails on."""
        model = self._model
        try:
            reply = await self.endpoint.send(Request(model, (_HARMLESS,), max_tokens=16))
        except TransientError:
            return False
        except RowRejected:
            return True
        self.budget.pay(reply.usage, price_of(model, self.settings.prices))
        return True

    def _gone(self, error: TransientError) -> ProviderError:
        return ProviderError(
            f"{self.endpoint.shown} does not answer: {error}",
            "check the server, then run the same command: what was paid is kept",
        )

    def _account(self, request: Request, reply: Reply, attempts: int, *, batch: bool = False) -> Reply:
        usage = reply.usage
        price = price_of(request.model, self.settings.prices)
        cost = self.budget.pay(usage, price, BATCH_SHARE if batch else 1.0)
        paid = replace(reply, attempts=attempts)
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

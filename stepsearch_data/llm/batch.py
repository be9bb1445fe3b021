"""OpenAI's Batch API, at half the price: a batch only fills the replay cache.

The stage's function is run over all questions with a substitute for the model, which answers from the
cache and collects what is not there. The replies of a batch go into the cache, and the stage then
runs as usual: repairs, and requests that failed in the batch, go online.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import orjson

from stepsearch_data.core.errors import ProviderError, RowRejected
from stepsearch_data.llm.batch_api import BatchApi
from stepsearch_data.llm.chat import Reply, Request, Usage
from stepsearch_data.llm.money import BATCH_SHARE, price_of, tokens_in
from stepsearch_data.llm.service import Llm
from stepsearch_data.remote.secrets import redact

if TYPE_CHECKING:
    from openai.types import Batch

Function = Callable[[Any], Awaitable[Any]]
Everyone = Callable[[Function], AsyncIterator[Any]]

MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
_WORDS = 300  # characters of a server's message that we repeat
_FIRST_LOOK = 1.0  # seconds
_USED = 8  # a reply takes 1/8 of the tokens that it may, as a rule of thumb
_FINAL = {"completed", "failed", "expired", "cancelled"}


class Deferred(Exception):
    """The request waits for a batch: its question is given up for now."""


@dataclass
class _File:
    """The requests of one batch: models by request digest, and what the replies may take."""

    content: IO[bytes]
    models: dict[str, str] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0


class Batches:
    """The substitute for a model: it sends the requests that it collects as batches. `tell` is called with progress."""

    def __init__(self, llm: Llm, tell: Callable[[str], None]) -> None:
        self._llm, self._endpoint, self._replay, self._tell = llm, llm.endpoint, llm.replay, tell
        self._api = BatchApi(llm.endpoint, llm.settings.patience)
        self._seen: set[str] = set()
        self._sent: dict[str, None] = {}
        self._files: list[_File] = []
        self._trial: asyncio.Task[Reply] | None = None

    async def fill(self, function: Function, everyone: Everyone) -> None:
        """Have batches answer what the cache cannot; `everyone` calls a function for every question.

        A request that follows from a reply, such as a judge's, goes into a batch of the next round.
        Raises BudgetError before anything is sent, and ProviderError for a batch that did not come to its end.
        """

        async def attempt(unit: Any) -> None:
            with suppress(Deferred, RowRejected):
                await function(unit)

        self._llm.substitute = self
        try:
            while True:
                async for _ in everyone(attempt):
                    pass
                if not (self._files or self._sent):
                    return
                await self._send_files()
                await self._follow()
        finally:
            self._llm.substitute = None
            for file in self._files:
                file.content.close()

    async def complete(self, request: Request) -> Reply:
        """See `ChatModel.complete`. Raises Deferred for what the cache does not hold."""
        digest = request.digest(self._endpoint.base_url)
        cached = self._replay.get(digest)
        if cached:
            return cached
        if digest in self._seen or any(message.role == "assistant" for message in request.messages):
            raise Deferred  # it failed in a batch, or is a repair
        self._seen.add(digest)
        sent = self._replay.batch_of(digest)
        if sent:
            self._sent[sent] = None
            raise Deferred
        if self._trial is None:  # one call online shows what the server refuses, before a batch pays for it
            self._trial = asyncio.create_task(self._llm.answer(request))
            return await self._trial
        with suppress(RowRejected):
            await asyncio.shield(self._trial)
        self._add(digest, request)
        raise Deferred

    def _add(self, digest: str, request: Request) -> None:
        body = self._endpoint.payload(request)
        call = {"custom_id": digest, "method": "POST", "url": "/v1/chat/completions", "body": body}
        line = orjson.dumps(call) + b"\n"
        last = self._files[-1] if self._files else None
        if last is None or len(last.models) >= MOST_REQUESTS or last.content.tell() + len(line) > MOST_BYTES:
            self._files.append(last := _File(tempfile.TemporaryFile()))  # noqa: SIM115 - closed by `fill`
        last.content.write(line)
        last.models[digest] = request.model
        usage = Usage(tokens_in(*(message.content for message in request.messages)), request.max_tokens // _USED)
        price = price_of(request.model, self._llm.settings.prices)
        last.usage += usage
        last.cost += price.of(usage) * BATCH_SHARE if price else 0.0

    async def _send_files(self) -> None:
        """Upload and start what was collected; each batch is remembered before the next one is sent."""
        if self._files:
            requests = sum(len(file.models) for file in self._files)
            usage = sum((file.usage for file in self._files), Usage())
            self._llm.budget.afford(usage, sum(file.cost for file in self._files), f"a batch of {requests:,} requests")
        for file in self._files:
            self._tell(f"sending a batch of {len(file.models):,} requests")
            batch = await self._api.start(file.content)
            self._replay.remember(batch, file.models)
            self._sent[batch] = None
            file.content.close()
        self._files.clear()

    async def _follow(self) -> None:
        """Wait for all batches and keep what each brings. Raises ProviderError for those that did not complete."""
        faults: list[str] = []
        wait = min(_FIRST_LOOK, self._llm.settings.batch_poll)
        while self._sent:
            for name in list(self._sent):
                batch = await self._api.look(name)
                counts = batch.request_counts
                answered = f"{counts.completed:,} of {counts.total:,} answered" if counts else "nothing answered yet"
                self._tell(f"batch {name} {batch.status}: {answered}")
                if batch.status in _FINAL:
                    faults += await self._keep(name, batch)
                    del self._sent[name]
            if self._sent:
                await asyncio.sleep(wait)
                wait = min(2 * wait, self._llm.settings.batch_poll)
        if faults:
            raise ProviderError(
                "; ".join(faults),
                "the same command sends what is not answered as a new batch, with --llm-mode online without one",
            )

    async def _keep(self, name: str, batch: Batch) -> list[str]:
        """Put a batch's replies into the cache; return what is wrong with a batch that did not complete."""
        models = self._replay.batch(name)
        answered = 0
        async for digest, reply in self._api.replies(batch):
            if digest in models:
                answered += 1
                self._llm.keep(models[digest], digest, reply)
        self._replay.forget(name)
        if batch.status == "completed":
            return []
        fault = f"batch {name} {batch.status}, {answered:,} of {len(models):,} requests answered"
        said = [str(error.message)[:_WORDS] for error in (batch.errors and batch.errors.data) or []]
        return [redact(": ".join([fault, *said[:1]]))]

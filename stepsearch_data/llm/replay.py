"""Replies of language models in the cache, and which requests were sent as batches."""

from __future__ import annotations

import orjson

from stepsearch_data.llm.chat import Reply, Usage
from stepsearch_data.remote.cache import Cache

_BATCHED = "CREATE TABLE IF NOT EXISTS batched (digest TEXT PRIMARY KEY, model TEXT NOT NULL, batch TEXT NOT NULL)"
_MORE = ("reasoning", "calls")  # what a reply may have too, and an older one has not


class Replay(Cache):
    """Replies by request digest."""

    tables = (*Cache.tables, _BATCHED)

    def get(self, digest: str) -> Reply | None:
        """Return the reply that was paid for before, marked as cached."""
        data = self.load(digest)
        if data is None:
            return None
        text, finish_reason, prompt, completion, *rest = orjson.loads(data)
        more = dict(zip(_MORE, rest, strict=False))
        return Reply(text, finish_reason, Usage(prompt, completion), attempts=0, cached=True, **more)

    def put(self, digest: str, reply: Reply) -> None:
        """Keep a reply; see `keep`."""
        rest = [getattr(reply, name) for name in _MORE]
        while rest and not rest[-1]:
            rest.pop()
        usage = [reply.usage.prompt_tokens, reply.usage.completion_tokens]
        self.keep(digest, orjson.dumps([reply.text, reply.finish_reason, *usage, *rest]))

    def batch_of(self, digest: str) -> str | None:
        """Return the batch that was sent with this request and whose replies have not been fetched yet."""
        rows = self._read("SELECT batch FROM batched WHERE digest = ?", digest)
        return str(rows[0][0]) if rows else None

    def batch(self, batch: str) -> dict[str, str]:
        """Return the models of a batch's requests, by digest."""
        return dict(self._read("SELECT digest, model FROM batched WHERE batch = ?", batch))

    def remember(self, batch: str, models: dict[str, str]) -> None:
        """Remember what was sent as a batch, until it is forgotten; commits what is pending, as a batch takes long."""
        self.flush()
        rows = [(digest, model, batch) for digest, model in models.items()]
        self._write("INSERT OR REPLACE INTO batched VALUES (?, ?, ?)", rows)

    def forget(self, batch: str) -> None:
        """Forget a batch whose replies are all kept."""
        self.flush()
        self._write("DELETE FROM batched WHERE batch = ?", [(batch,)])

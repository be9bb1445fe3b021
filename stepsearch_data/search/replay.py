"""What search APIs have answered, by what they were asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from stepsearch_data.remote.cache import Cache
from stepsearch_data.search.engine import Answer, Found


class Replay(Cache):
    """Answers to single queries; `asked` is what all of them have in common, and holds no key."""

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        super().__init__(path)
        self._asked = dict(asked)

    def get(self, query: str, k: int) -> Answer | None:
        """Return the answer that was kept, with the latency that it had."""
        data = self.load(self._digest(query, k))
        if data is None:
            return None
        latency, found = orjson.loads(data)
        return Answer([Found(None, *document) for document in found], latency=latency)

    def put(self, query: str, k: int, answer: Answer) -> None:
        """Keep an answer; see `keep`."""
        self.keep(self._digest(query, k), orjson.dumps([answer.latency, [found[1:] for found in answer.found]]))

    def _digest(self, query: str, k: int) -> str:
        asked = {**self._asked, "query": query, "k": k}
        return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()

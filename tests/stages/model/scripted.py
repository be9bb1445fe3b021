"""A model with scripted replies that remembers its requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

from stepsearch_data.llm.chat import Reply, Request
from stepsearch_data.stages.model import ModelConfig

T = TypeVar("T")

SETTINGS = ModelConfig(llm="tiny")


class ScriptedModel:
    """Answers with the given replies, in order; an object is sent as JSON, an exception is raised."""

    def __init__(self, *replies: Any) -> None:
        self._replies = list(replies)
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Reply):
            return reply
        return Reply(reply if isinstance(reply, str) else json.dumps(reply))

    @property
    def last_complaint(self) -> str:
        """The latest turn of the user."""
        return self.requests[-1].messages[-1].content


def wait(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)

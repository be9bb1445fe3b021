"""The settings that all stages share which may ask a model: who answers, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from stepsearch_data.llm.chat import Message, Request
from stepsearch_data.pipeline.stage import StageConfig
from stepsearch_data.stages.model.prompts import load_prompt
from stepsearch_data.stages.model.replies import schema_of

OFFLINE = "offline"


class ModelConfig(StageConfig):
    """`offline`, or a model of an OpenAI-compatible server."""

    llm: str = Field(
        default=OFFLINE,
        min_length=1,
        description="`offline` (deterministic rules), or a model of an OpenAI-compatible server",
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="sampling temperature of the model")
    max_tokens: int = Field(default=1024, ge=16, le=1_000_000, description="tokens of a reply at most")
    repairs: int = Field(
        default=2, ge=0, le=100, description="turns that show the model what was wrong, before the row is rejected"
    )

    reasoning_effort: str = Field(
        default="", description="how long a reasoning model thinks, such as low or high; the server's default"
    )
    extra_body: dict[str, Any] = Field(
        default={}, description="what else is sent with each request, as the server names it, such as {top_p = 0.9}"
    )

    @property
    def uses_model(self) -> bool:
        """Tell whether a model is asked."""
        return self.llm != OFFLINE

    @property
    def asks(self) -> tuple[str, ...]:
        """Return the names of the prompts that a model gets."""
        return ()

    def prompts(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Return the texts of the prompts where a model is asked, else none. Raises ConfigError."""
        return {name: load_prompt(name, files.get(name)).text for name in self.asks} if self.uses_model else {}

    def request(self, messages: tuple[Message, ...], reply: type[BaseModel], sample: int) -> Request:
        """Return a first request for a reply of this shape. Each repeated try of a row has another `sample`."""
        return Request(
            model=self.llm,
            messages=messages,
            schema=schema_of(reply),
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            sample=sample,
            reasoning_effort=self.reasoning_effort,
            extra_body=self.extra_body,
        )

"""How a model is reached and how fast: services, never part of a fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stepsearch_data.core.files import cache_folder

Price = Annotated[float, Field(ge=0, le=1e9)]
OPENAI = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
AZURE = "AZURE_OPENAI_ENDPOINT"


def default_replay() -> Path:
    """Return where paid replies are kept: one file for all stores of this user."""
    return cache_folder() / "replay.sqlite"


class LlmSettings(BaseModel):
    """How a model is reached and how fast. Nothing here changes a row; the key comes from OPENAI_API_KEY alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(default=OPENAI, description="OpenAI-compatible server; OPENAI_BASE_URL takes precedence")
    mode: Literal["online", "batch"] = Field(
        default="online", description="batch: first requests by OpenAI's Batch API, at half the price, within 24 hours"
    )
    batch_poll: float = Field(default=30.0, gt=0, le=86_400, description="seconds between two checks of a batch")
    max_concurrency: int = Field(
        default=64, ge=1, le=10_000, description="limit of calls in flight; fewer when the server is slow"
    )
    rpm: float | None = Field(default=None, gt=0, le=1e9, description="limit of requests per minute")
    tpm: float | None = Field(default=None, gt=0, le=1e12, description="limit of tokens per minute")
    timeout: float = Field(default=120.0, gt=0, le=86_400, description="seconds for one call")
    max_attempts: int = Field(
        default=6, ge=1, le=1_000, description="attempts per call; a wait that the server asks for does not count"
    )
    patience: float = Field(
        default=120.0,
        gt=0,
        le=1_000_000,
        description="seconds without a successful call; then the build stops (exit 5)",
    )
    max_cost: float | None = Field(default=None, ge=0, le=1e9, description="US dollars before the build stops (exit 4)")
    max_tokens_total: int | None = Field(
        default=None, ge=0, le=10**15, description="tokens before the build stops (exit 4)"
    )
    replay: Path = Field(default_factory=default_replay, description="file that keeps every paid reply")
    prices: dict[str, tuple[Price, Price]] = Field(
        default={}, description="your prices: model = [prompt, completion], US dollars per million tokens"
    )

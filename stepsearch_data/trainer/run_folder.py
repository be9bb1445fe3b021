"""The folder of a run: what its files are called, and what `run.json` says of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

METRICS, RUN_INFO, RECIPE = "metrics.jsonl", "run.json", "recipe.json"

Pair = tuple[str, int | None, int]


class RunInfo(BaseModel):
    """What `run.json` says. Runs that agree in all but `variant` are a pair; other keys are not read."""

    model_config = ConfigDict(frozen=True)

    variant: str
    start: str = ""
    """The cold start, such as weak or strong."""
    sft_seed: int | None = None
    """The seed of the cold start, where there are several."""
    seed: int = 0

    @property
    def pair(self) -> Pair:
        """Return what runs of several variants share."""
        return self.start, self.sft_seed, self.seed

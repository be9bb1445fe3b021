"""The folders of a run and of its published policy: what files are called; what `run.json` and `best.json` say."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

METRICS, RUN_INFO, RECIPE, BEST = "metrics.jsonl", "run.json", "recipe.json", "best.json"
TEMPLATE = "template.txt"
"""The template that the recipe names, where it is one of the user's own."""
RECIPE_TOML = "recipe.toml"
"""What a published policy was trained with."""
UPDATE = "update.json"
"""In the folder of a checkpoint: after which update it was saved."""

Pair = tuple[str, int | None, int]


class RunInfo(BaseModel):
    """What `run.json` says. Runs that agree in `pair` but not in `variant` are a pair; other keys are not read."""

    model_config = ConfigDict(frozen=True)

    variant: str
    start: str = ""
    """The cold start, such as weak or strong."""
    sft_seed: int | None = None
    """The seed of the cold start, where there are several."""
    seed: int = 0
    store: str = ""
    """SHA-256 of the store that it is trained on."""
    held_out: int = 0
    """Questions that are held out; 0 if unknown."""

    @property
    def pair(self) -> Pair:
        """Return what runs of several variants share."""
        return self.start, self.sft_seed, self.seed


class Best(BaseModel):
    """What `best.json` says: which checkpoint answered the held-out questions best, the first of equals."""

    model_config = ConfigDict(frozen=True)

    update: int
    eval_em: float

    @property
    def checkpoint(self) -> str:
        """Return the name of its folder."""
        return checkpoint_name(self.update)


def checkpoint_name(update: int) -> str:
    """Return the name of the folder of an update's checkpoint; names sort by updates."""
    return f"checkpoint-{update:06}"

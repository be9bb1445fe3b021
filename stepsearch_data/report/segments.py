"""The parts of a rollout's text, as they are drawn on its time line."""

from __future__ import annotations

from typing import Literal

from stepsearch_data.report import shapes
from stepsearch_data.rewards.rollout import Places, sections

_KINDS: dict[str, Literal["think", "search", "information", "observation", "answer", "warning", "text"]] = {
    "think": "think",
    "plan": "think",
    "search": "search",
    "information": "information",
    "observation": "observation",
    "answer": "answer",
    "warning": "warning",
    "text": "text",
}


def segments(rollout: str, rounds: int, observations: Places | None = None) -> list[shapes.Segment]:
    """Split the rollout into its parts; the n-th search and its result belong to the n-th round."""
    found: list[shapes.Segment] = []
    searches = 0
    for name, span in sections(rollout, observations):
        searches += name == "search"
        at = searches - 1 if name in {"search", "information"} else None
        own = at if at is not None and 0 <= at < rounds else None
        found.append({"kind": _KINDS[name], "text": span.text, "round": own})
    return found

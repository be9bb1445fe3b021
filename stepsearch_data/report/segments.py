"""The parts of a rollout's text, as they are drawn on its time line."""

from __future__ import annotations

from typing import Literal

from stepsearch_data.report import shapes
from stepsearch_data.rewards.rollout import Places, Rollout, sections

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


def segments_of_calls(rollout: Rollout) -> list[shapes.Segment]:
    """Make parts of a conversation with calls: each query with what it showed, then the answer."""
    found: list[shapes.Segment] = []
    for at, each in enumerate(rollout.rounds):
        found.append({"kind": "search", "text": each.query.text, "round": at})
        shown = "\n\n".join(document.span.text for document in each.documents)
        found.append({"kind": "information", "text": shown, "round": at})
    if rollout.answer:
        found.append({"kind": "answer", "text": rollout.answer.text, "round": None})
    return found

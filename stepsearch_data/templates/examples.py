"""What templates write out: a trajectory with its texts, whatever table they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepsearch_data.core.intervals import Passes


@dataclass(frozen=True)
class Paragraph:
    """A title and its text."""

    title: str
    text: str

    def row(self) -> dict[str, str]:
        """Return it by the names that trainers' files have for its parts."""
        return {"title": self.title, "paragraph_text": self.text}


@dataclass(frozen=True)
class Search:
    """A query and the documents that it showed, best first. `good`: it passed the vote and shows a gold paragraph.

    `text` is the turn in a policy's own words, with tags; empty where a template words it. A policy's search is good
    when it shows a gold paragraph that no earlier one has shown.
    """

    query: str
    documents: tuple[Paragraph, ...]
    good: bool
    text: str = ""


@dataclass(frozen=True)
class Step:
    """One round: what was asked and found, its search, and the hop's searches that the engines voted out.

    `role` is gold, distractor (a search that finds nothing, before the gold one of its hop) or abstain
    (the last search of a question that cannot be answered). `keys` are the reference queries, the
    round's own first: never empty. Where the vote dropped every query of the hop, the round's own was dropped too.
    `rejected` is filled only for formats that want it.
    """

    hop: int
    role: str
    sub_question: str
    found: str
    search: Search
    keys: tuple[str, ...]
    gold: tuple[Paragraph, ...] = ()
    rejected: tuple[Search, ...] = ()


@dataclass(frozen=True)
class Preferred:
    """What a policy wrote after the same text in a right and in a wrong rollout, in `turn`, from 1."""

    turn: int
    context: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Example:
    """A trajectory with all that a format may want. `index` counts from 0 in its split; `answers[0]` is gold.

    `passes` are the rollouts of a policy; None where it has played none. A trajectory of a teacher has its last turn,
    with tags, as `final`, and no reference queries.
    """

    index: int
    split: str
    question_id: str
    source: str
    question: str
    answers: tuple[str, ...]
    hops: int
    steps: tuple[Step, ...]
    passes: Passes | None = None
    final: str = ""
    preferred: tuple[Preferred, ...] = ()

    @property
    def gold(self) -> tuple[Paragraph, ...]:
        """Return the distinct gold paragraphs, in order of first use."""
        return tuple(dict.fromkeys(paragraph for step in self.steps for paragraph in step.gold))

    @property
    def keys(self) -> list[list[str]]:
        """Return the reference queries of each hop that was searched."""
        return [list(step.keys) for step in self.steps if step.role != "distractor"]

    @property
    def origin(self) -> Literal["gold", "teacher"]:
        """Return whose trajectory it is."""
        return "teacher" if self.final else "gold"

    @property
    def abstains(self) -> bool:
        """Tell whether the answer is that there is none."""
        return self.steps[-1].role == "abstain"

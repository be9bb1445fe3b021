"""The checks in their order, and how what they found becomes a verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby

from stepsearch_data.core.validation import known_names
from stepsearch_data.schemas.rows import Check, Question, Verdict
from stepsearch_data.stages.proof.signals import FAILED, PASSED, UNASKED

SIGNALS = (
    "unlinked_hop",
    "bridge_named",
    "answer_named",
    "answer_not_in_gold",
    "answer_in_several",
    "one_paragraph",
    "several_titles",
    "time_dependent",
    "closed_choice",
    "one_search",
    "shown_at_once",
)
READINGS = ("closed_book", "answerable", "left_one_out", "unique")
CHECKS = (*SIGNALS, *READINGS)
"""All checks, cheapest first."""

GATES = ("unlinked_hop", "bridge_named", "answer_named", "answer_not_in_gold", "one_paragraph", *READINGS)
"""Checks that a question must not fail, as far as anything else is set. The others are hints."""


def whole_below(share: float) -> str:
    """Return the bound of `draw`, below which so large a share of questions goes through all checks."""
    return f"{min(int(share * 2**64), 2**64 - 1):016x}" if share < 1 else "g"


def draw(what: str, question_id: str) -> str:
    """Return 16 hexadecimal digits that depend on nothing but the id: in their order questions are drawn."""
    return hashlib.sha256(f"{what} {question_id}".encode()).hexdigest()[:16]


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, which must be those of checks. Raises ValueError."""
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"{name!r} is no check; {known_names(name, CHECKS)}")
    return names


def decide(
    question: Question, checks: Sequence[Check], gates: Collection[str], need: int | None, passages: int
) -> Verdict:
    """Return the verdict on a question. `need` is how many samples decide: more than half, where it is None."""
    failed = list(failures(checks, need))
    first = next((check for check in failed if check in gates), None)
    complete = bool(checks) and (first is not None or all(row.outcome != UNASKED for row in checks))
    return Verdict(
        question_id=question.question_id,
        source=question.source,
        passed=complete and first is None,
        failed=failed,
        first_failed=first,
        complete=complete,
        judged_by=list(dict.fromkeys(row.judge for row in checks if row.judge)),
        corpus_passages=passages,
    )


def failures(checks: Sequence[Check], need: int | None = None) -> Iterator[str]:
    """Yield the checks that a question fails, in their order.

    Of a reading, `need` samples decide: so many right answers make a question answerable, and so many
    samples that speak against it fail any other check, for any one part.
    """
    counted = [row for row in checks if row.outcome in (PASSED, FAILED)]
    for check in CHECKS:
        of_check = [row for row in counted if row.check == check]
        if any(_fails(list(samples), need) for _, samples in groupby(of_check, lambda row: row.part)):
            yield check


def _fails(samples: Sequence[Check], need: int | None) -> bool:
    least = need or majority(len(samples))
    against = sum(row.outcome == FAILED for row in samples)
    return len(samples) - against < least if samples[0].check == "answerable" else against >= min(least, len(samples))


def majority(samples: int) -> int:
    """Return how many samples are more than half."""
    return samples // 2 + 1

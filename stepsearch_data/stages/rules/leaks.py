"""What a query must not say: the answer that it is meant to find, or a later one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stepsearch_data.core.text import contains, facts, mentions, normalise
from stepsearch_data.schemas.rows import SubQuestion

_SHORT = 4  # characters; shorter answers ("48", "no") are looked for as whole tokens only


def forbidden(hops: Sequence[SubQuestion], hop: int, answers: Iterable[str]) -> list[str]:
    """Return the answers that a query of this hop (from 1) must not hold: its own, later hops', the final ones.

    A hop that collects several facts joins them with "; ": each is an answer of its own.
    """
    own_and_later = [part for later in hops if later.hop >= hop for part in facts(later.sub_answer)]
    return list(dict.fromkeys((*own_and_later, *answers)))


def leaked(query: str, question: str, answers: Iterable[str]) -> list[str]:
    """Return the answers that the query holds and the question does not, after official normalisation."""
    return [answer for answer in answers if _gives_away(query, question, answer)]


def _gives_away(query: str, question: str, answer: str) -> bool:
    if not mentions(query, answer):
        return False
    if contains(query, answer) and not contains(question, answer):
        return True
    return len(normalise(answer)) >= _SHORT and not mentions(question, answer)

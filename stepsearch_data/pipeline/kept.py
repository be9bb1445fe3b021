"""The rollouts that a store keeps, each with what it is scored against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepsearch_data.pipeline.questions import QuestionRows
from stepsearch_data.schemas.rows import Rollout
from stepsearch_data.schemas.tables import ROLLOUTS, ROUNDS


def kept(rows: QuestionRows) -> Iterator[tuple[dict[str, Any], Rollout]]:
    """Yield the kept rollouts of a question, each as a row that `score` reads, and as it is stored.

    Reference queries are those of the question's gold trajectory, its `rounds`.
    """
    question = rows.question
    against = {
        "id": question.question_id,
        "data_source": question.source,
        "target": [question.answer, *question.answer_aliases],
        "search_keys": [[step.query, *step.alternatives] for step in rows.get(ROUNDS) if step.role != "distractor"],
        "support_docs": [gold.text for gold in question.supporting],
    }
    for row in rows.get(ROLLOUTS):
        own = {name: getattr(row, name) for name in ("policy", "sample", "response", "observations")}
        yield {**against, **own}, row

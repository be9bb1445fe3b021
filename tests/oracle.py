"""A language model that knows the answers: it reads them in a store that rules have built.

It finds the question, and the sub-question, in the prompt, and answers from that store's tables.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.rows import Question
from stepsearch_data.schemas.tables import QUERIES, QUESTIONS, SUB_QUESTIONS

_QUESTION = re.compile(r"^Question: (.*)$", re.MULTILINE)
_SUB_QUESTION = re.compile(r"^Sub-question to search for: (.*)$", re.MULTILINE)


class Oracle:
    """Answers as an `LlmServer` wants it: from a request's JSON to the reply's text."""

    def __init__(self, root: Path) -> None:
        store = Store.open(root)
        manifest = store.manifest()
        paths = store.tables(manifest, QUESTIONS, SUB_QUESTIONS, QUERIES)
        self.questions = {row.question_id: row for row in read_rows(paths[QUESTIONS], QUESTIONS)}
        self._steps: dict[str, list[dict[str, Any]]] = {}
        self._queries: dict[tuple[str, str], list[str]] = {}
        asked = {}
        for hop in read_rows(paths[SUB_QUESTIONS], SUB_QUESTIONS):
            question = self.questions[hop.question_id]
            places = [paragraph.passage_id for paragraph in question.supporting]
            asked[hop.question_id, hop.hop] = question.question, hop.sub_question
            self._steps.setdefault(question.question, []).append(
                {
                    "question": hop.template,
                    "answer": hop.sub_answer,
                    "depends_on": hop.depends_on,
                    "paragraph": places.index(hop.gold_passage_ids[0]) + 1,
                }
            )
        for question in self.questions.values():
            self._mend(question)
        for query in read_rows(paths[QUERIES], QUERIES):
            self._queries.setdefault(asked[query.question_id, query.hop], []).append(query.query)

    def __call__(self, request: dict[str, Any]) -> str:
        """The right reply."""
        question = question_of(request)
        hop = sub_question_of(request)
        if hop is None:
            return json.dumps({"steps": self._steps[question]})
        invented = [f"{hop[:150]} {word}" for word in ("facts", "overview", "history", "article")]
        return json.dumps({"queries": self._queries.get((question, hop), invented)})

    def _mend(self, question: Question) -> None:
        """Where the rules' last hop does not find the answer, as in comparisons, ask the question itself last."""
        steps = self._steps.get(question.question, [])
        if not steps or steps[-1]["answer"] == question.answer:
            return
        places = [n for n, p in enumerate(question.supporting, start=1) if question.answer in f"{p.title} {p.text}"]
        last = {"question": question.question, "answer": question.answer, "paragraph": places[0] if places else 1}
        steps.append({**last, "depends_on": list(range(1, len(steps) + 1))})


def question_of(request: dict[str, Any]) -> str:
    """The question that a request is about."""
    found = _QUESTION.search(_opening(request))
    assert found
    return found[1]


def sub_question_of(request: dict[str, Any]) -> str | None:
    """The sub-question that queries are wanted for; None in a request to decompose."""
    found = _SUB_QUESTION.search(_opening(request))
    return found[1] if found else None


def _opening(request: dict[str, Any]) -> str:
    return next(str(message["content"]) for message in request["messages"] if message["role"] == "user")

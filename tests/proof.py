"""Builds that judge questions with known faults, as a source has them or from documents, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.composer import SKIPPED, Shown, compose, hop_of, shown
from tests.faults import Questions, Row, documents
from tests.llm_server import LlmServer, completion
from tests.model_builds import ModelBuilds
from tests.reader import Reader

STAGES = "load,mine,compose,index,verify,decide"
_ALL = 1_000_000_000
_DRAWN = {"questions": 10_000_000, "per_title": _ALL, "per_passage": _ALL, "comparisons": "false"}
_OUTCOMES = """
SELECT passage_ids, coalesce(if(composed.reason LIKE 'it repeats %', 'repeated', status), 'unreadable') AS status,
    if(passed, NULL, coalesce(first_failed, 'incomplete')) AS failed
FROM chains LEFT JOIN composed USING (chain_id) LEFT JOIN verdicts USING (question_id)
"""


class Writer:
    """Writes the questions that are to be made, and skips all other chains.

    Of a chain with a fault it believes what the row says, or spoils its reply.
    """

    believed = frozenset({"wrong_bridge", "answer_leak", "bridge_leak", "gold_silent", "wrong_answer", "repeated"})

    def __init__(self, questions: Questions) -> None:
        self.chains = questions.chains

    def __call__(self, request: dict[str, Any]) -> str | dict[str, Any]:
        """The reply."""
        passages, mentions = shown(request)
        fault, row = self.chains.get(tuple(passage.title for passage in passages), ("", {}))
        if not fault:
            return json.dumps(SKIPPED)
        reply = _told(row, passages) if fault in self.believed else compose(passages, mentions)
        if fault == "unverbatim":
            reply["answer"] = reply["hops"][-1]["answer"] = f"{reply['answer']} the Elder"
        text = json.dumps(reply)
        return completion(text[: len(text) // 2], "length") if fault == "cut_off" else text


def _told(row: Row, passages: list[Shown]) -> dict[str, Any]:
    """A question as a row has it, each hop with the first sentence that says its answer."""
    hops = []
    for number, (step, passage) in enumerate(zip(row["question_decomposition"], passages, strict=True), start=1):
        sentence = next(n for n, said in enumerate(passage.sentences, start=1) if step["answer"] in said)
        hops.append(hop_of(step["question"], step["answer"], number, sentence, "fact"))
    return {**SKIPPED, "skip": "", "hops": hops, "question": row["question"], "answer": row["answer"]}


class GivenQuestions(ModelBuilds):
    """Builds of a source of questions, up to their verdicts."""

    def __init__(self, folder: Path, server: LlmServer, questions: Questions) -> None:
        source = f"musique={folder / 'questions.jsonl'}"
        super().__init__(folder, server, "--source", source, "--stage", STAGES, "--set", "verify.llm=mock")
        self.questions = questions
        _write(folder / "questions.jsonl", (row for of in questions.rows.values() for row in of))

    def outcomes(self, store: Path | None = None) -> dict[str, str | None]:
        """The first check that each question failed, by its id."""
        found = self.rows("SELECT question_id, passed, first_failed FROM verdicts", store)
        assert all(row["passed"] == (row["first_failed"] is None) for row in found)
        return {row["question_id"]: row["first_failed"] for row in found}


class ComposedQuestions(ModelBuilds):
    """Builds of documents, up to the verdicts on the questions that are composed from them."""

    def __init__(self, folder: Path, server: LlmServer, questions: Questions) -> None:
        source = f"corpus={folder / 'documents.jsonl'}"
        settings = {"compose.llm": "mock", "verify.llm": "mock", "run.max_reject_share": 1}
        settings |= {f"mine.{name}": value for name, value in _DRAWN.items()}
        given = (part for name, value in settings.items() for part in ("--set", f"{name}={value}"))
        super().__init__(folder, server, "--source", source, "--stage", STAGES, *given)
        self.questions = questions
        _write(folder / "documents.jsonl", documents(questions))

    def outcomes(self) -> dict[str, str | None]:
        """What stopped each question, by the id of its row: a check, or else its status. Others were not drawn."""
        title = {row["passage_id"]: row["title"] for row in self.rows("SELECT passage_id, title FROM paragraphs")}
        found: dict[str, str | None] = {}
        for chain in self.rows(_OUTCOMES):
            titles = tuple(title[passage] for passage in chain["passage_ids"])
            fault, row = self.questions.chains.get(titles, ("", {}))
            if row and row["id"].startswith(f"{fault}__"):
                assert row["id"] not in found
                found[row["id"]] = chain["failed"] if chain["status"] == "kept" else chain["status"]
        return found


def unseen(questions: Questions, reader: Reader, outcomes: dict[str, str | None]) -> set[str]:
    """Return the questions whose other branch was not among the passages that the reader was shown."""
    found = set()
    for row in questions.rows.get("ambiguous_bridge", []):
        branch = [f"{p['title']}\n{p['paragraph_text']}" for p in row["paragraphs"][-2:]]
        shown = reader.shown.get(row["question"], set())
        if outcomes.get(row["id"], "") is None and not shown.issuperset(branch):
            found.add(row["id"])
    return found


def _write(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")

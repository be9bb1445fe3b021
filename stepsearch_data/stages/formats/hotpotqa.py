"""HotpotQA (distractor setting) and 2WikiMultihopQA, which shares its form."""

from __future__ import annotations

from itertools import accumulate

from stepsearch_data.pipeline.errors import RowRejected
from stepsearch_data.pipeline.sources import Record
from stepsearch_data.schemas.rows import Evidence, Question
from stepsearch_data.schemas.sources import HotpotRow, TwoWikiRow
from stepsearch_data.stages.formats.common import Loaded, paragraph, supporting, validate


def parse_hotpotqa(record: Record) -> Loaded:
    """A HotpotQA row. Raises RowRejected."""
    return _from_context(record, validate(HotpotRow, record), "hotpotqa", [])


def parse_two_wiki(record: Record) -> Loaded:
    """A 2WikiMultihopQA row. Raises RowRejected."""
    row = validate(TwoWikiRow, record)
    return _from_context(record, row, "2wiki", [Evidence(subject=s, relation=r, object=o) for s, r, o in row.evidences])


def _from_context(record: Record, row: HotpotRow, source: str, evidences: list[Evidence]) -> Loaded:
    paragraphs = [paragraph(title, "".join(sentences)) for title, sentences in row.context]
    facts: dict[str, list[int]] = {}
    for title, sentence in row.supporting_facts:
        facts.setdefault(title, []).append(sentence)
    if not facts:
        raise RowRejected("supporting_facts is empty")
    gold = []
    for title, cited in facts.items():
        at = _find_paragraph(row.context, title, cited)
        ends = accumulate(len(sentence) for sentence in row.context[at][1])
        gold.append(supporting(paragraphs[at], ends, cited))
    question = Question(
        question_id=row.id,
        source=source,
        position=record.position,
        question=row.question,
        answer=row.answer,
        answer_aliases=[],
        answerable=True,
        question_type=row.type,
        level=row.level,
        hops=len(gold),
        paragraph_ids=list(dict.fromkeys(p.passage_id for p in paragraphs)),
        supporting=gold,
        decomposition=[],
        evidences=evidences,
    )
    return question, paragraphs


def _find_paragraph(context: list[tuple[str, list[str]]], title: str, cited: list[int]) -> int:
    """Position of the paragraph that the supporting facts cite: titles may repeat, sentences decide."""
    named = [at for at, (name, _) in enumerate(context) if name == title]
    if not named:
        raise RowRejected(f"supporting_facts: no paragraph is called {title!r}")
    for at in named:
        if all(0 <= sentence < len(context[at][1]) for sentence in cited):
            return at
    raise RowRejected(f"supporting_facts: {title!r} has no sentence {max(cited)}")

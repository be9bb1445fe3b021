"""HotpotQA and 2WikiMultihopQA, which shares its form."""

from __future__ import annotations

from itertools import accumulate, zip_longest

from stepsearch_data.core.errors import GoldMissing, RowRejected
from stepsearch_data.schemas.rows import Evidence, Question, SupportingParagraph
from stepsearch_data.sources import Record
from stepsearch_data.sources.models import HotpotRow, TwoWikiRow
from stepsearch_data.sources.record import Loaded, paragraph, supporting, validate

FEWEST_WORDS = 4
"""A HotpotQA question with fewer is broken ("w", "DRM"): v1.1 is v1.0 without 117 extremely short ones."""


def parse_hotpotqa(record: Record) -> Loaded:
    """A HotpotQA row. Raises RowRejected."""
    row = validate(HotpotRow, record)
    short = len(row.question.split()) < FEWEST_WORDS
    return _from_context(record, row, "hotpotqa", notes=["extremely short: not in HotpotQA v1.1"] if short else [])


def parse_two_wiki(record: Record) -> Loaded:
    """A 2WikiMultihopQA row. Raises RowRejected."""
    row = validate(TwoWikiRow, record)
    ids = row.evidences_id or []
    notes = []
    if ids and len(ids) != len(row.evidences):
        notes.append(f"evidences_id: {len(ids)} triples for {len(row.evidences)} evidences")
        ids = []
    evidences = [
        Evidence(subject=s, relation=r, object=o, subject_id=s_id or "", object_id=o_id or "")
        for (s, r, o), (s_id, _, o_id) in zip_longest(row.evidences, ids, fillvalue=("", "", ""))
    ]
    return _from_context(record, row, "2wiki", evidences, row.answer_id or "", notes)


def _from_context(
    record: Record,
    row: HotpotRow,
    source: str,
    evidences: list[Evidence] | None = None,
    answer_id: str = "",
    notes: list[str] | None = None,
) -> Loaded:
    paragraphs = [paragraph(title, "".join(sentences)) for title, sentences in row.context]
    gold, left_out = _gold(row)
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
        evidences=evidences or [],
        answer_id=answer_id,
        notes=[*(notes or []), *left_out],
    )
    return question, paragraphs


def _gold(row: HotpotRow) -> tuple[list[SupportingParagraph], list[str]]:
    """The gold paragraphs, and what is said of facts that name no sentence: their paragraph is gold all the same."""
    facts: dict[str, list[int]] = {}
    for title, sentence in row.supporting_facts:
        facts.setdefault(title, []).append(sentence)
    if not facts:
        raise RowRejected("supporting_facts is empty")
    gold: list[SupportingParagraph] = []
    notes: list[str] = []
    for title, cited in facts.items():
        sentences = _find_paragraph(row.context, title, cited)
        known = [sentence for sentence in cited if 0 <= sentence < len(sentences)]
        notes += [f"supporting_facts: {title!r} has no sentence {at}" for at in cited if at not in known]
        gold.append(supporting(paragraph(title, "".join(sentences)), accumulate(map(len, sentences)), known))
    if not any(found.supporting_sentences for found in gold):
        raise RowRejected(notes[0])
    return gold, notes


def _find_paragraph(context: list[tuple[str, list[str]]], title: str, cited: list[int]) -> list[str]:
    """Sentences of the paragraph that the facts cite: titles may repeat, then the facts' sentences decide."""
    named = [sentences for name, sentences in context if name == title]
    if not named:
        raise GoldMissing(f"supporting_facts: no paragraph is called {title!r}")
    return max(named, key=lambda sentences: sum(0 <= at < len(sentences) for at in cited))

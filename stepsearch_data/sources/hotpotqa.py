"""HotpotQA v1, whose form 2WikiMultihopQA shares."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated

from pydantic import AliasChoices, Field, StrictInt

from stepsearch_data.core.errors import GoldMissing, RowRejected
from stepsearch_data.rewards import hotpotqa_answer
from stepsearch_data.schemas.rows import Evidence, Question, SupportingParagraph
from stepsearch_data.sources.dataset import Dataset, Publication
from stepsearch_data.sources.record import Loaded, Record, SourceRow, paragraph, supporting, tuples, validate

FEWEST_WORDS = 4
"""A HotpotQA question with fewer is broken ("w", "DRM"): v1.1 is v1.0 without 117 extremely short ones."""
SIGNATURE = frozenset({"supporting_facts", "context"})
NO_SENTENCE = "questions have a supporting fact that names no sentence; it was left out (questions.notes)"
GOLD_ELSEWHERE = (
    "HotpotQA's distractor file has them all",
    "a file of the fullwiki setting holds what was retrieved: build from the distractor file; eval reads both",
)


class HotpotRow(SourceRow):
    """HotpotQA v1. In the fullwiki setting, `context` is what was retrieved and may lack a gold paragraph."""

    id: str = Field(validation_alias=AliasChoices("_id", "id"))
    question: str
    answer: str
    supporting_facts: Annotated[list[tuple[str, StrictInt]], tuples(("title", "sent_id"))]
    context: Annotated[list[tuple[str, list[str]]], tuples(("title", "sentences"), ("title", "content"))]
    type: str
    level: str = ""


def parse(record: Record) -> Loaded:
    """Read a HotpotQA row. Raises RowRejected."""
    row = validate(HotpotRow, record)
    short = len(row.question.split()) < FEWEST_WORDS
    return from_context(record, row, "hotpotqa", notes=["extremely short: not in HotpotQA v1.1"] if short else [])


def from_context(
    record: Record,
    row: HotpotRow,
    source: str,
    evidences: list[Evidence] | None = None,
    answer_id: str = "",
    notes: list[str] | None = None,
) -> Loaded:
    """Make a question whose `supporting_facts` cite sentences of its `context`. Raises RowRejected, GoldMissing."""
    paragraphs = [paragraph(title, "".join(sentences)) for title, sentences in row.context]
    gold, left_out = _gold(row)
    question = Question(
        question_id=row.id,
        source=source,
        position=record.position,
        question=row.question,
        answer=row.answer,
        question_type=row.type,
        level=row.level,
        hops=len(gold),
        paragraph_ids=list(dict.fromkeys(p.passage_id for p in paragraphs)),
        supporting=gold,
        evidences=evidences or [],
        answer_id=answer_id,
        notes=[*(notes or []), *left_out],
    )
    return question, paragraphs


def _gold(row: HotpotRow) -> tuple[list[SupportingParagraph], list[str]]:
    """Return the gold paragraphs, and notes on facts that name no sentence: their paragraph is gold all the same."""
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
    """Return the sentences of the paragraph that the facts cite; where titles repeat, the cited sentences decide."""
    named = [sentences for name, sentences in context if name == title]
    if not named:
        raise GoldMissing(f"supporting_facts: no paragraph is called {title!r}")
    return max(named, key=lambda sentences: sum(0 <= at < len(sentences) for at in cited))


def score(prediction: str, golds: Sequence[str]) -> tuple[float, float]:
    """See `Score`: the official script knows one gold."""
    em, f1, *_ = hotpotqa_answer(prediction, golds[0])
    return em, f1


DATASET = Dataset(
    name="hotpotqa",
    doc="HotpotQA v1",
    parse=parse,
    signatures=(SIGNATURE,),
    score=score,
    publication=Publication(
        credit="HotpotQA by Yang, Qi, Zhang, Bengio, Cohen, Salakhutdinov and Manning (https://hotpotqa.github.io), "
        "CC BY-SA 4.0: what holds its texts may be passed on under the same licence only",
        licence="cc-by-sa-4.0",
        bibtex="""\
@inproceedings{hotpotqa,
  title     = {HotpotQA: A Dataset for Diverse, Explainable Multi-hop Question Answering},
  author    = {Yang, Zhilin and Qi, Peng and Zhang, Saizheng and Bengio, Yoshua and Cohen, William W. and
               Salakhutdinov, Ruslan and Manning, Christopher D.},
  booktitle = {EMNLP},
  year      = {2018}
}""",
        tag="extended|hotpot_qa",
    ),
    hub="hf:hotpotqa/hotpot_qa:distractor/validation",
    data_source="hotpotqa",
    released_as="hotpot",
    sample="hotpotqa.sample.json",
    notes={
        "extremely short": "questions are extremely short: this is HotpotQA v1.0; take hotpot_train_v1.1.json",
        "supporting_facts": NO_SENTENCE,
    },
    gold_elsewhere=GOLD_ELSEWHERE,
)

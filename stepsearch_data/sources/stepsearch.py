"""The StepSearch release: rows of its dataset, and of the training file that its scripts make of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictInt

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources.dataset import Dataset
from stepsearch_data.sources.record import Loaded, Record, SourceRow, paragraph, records, supporting, validate

_QUESTION = re.compile(r".*(?:Question:|## Question\n)(.*)", re.DOTALL)  # the last one of the prompt


class StepSearchParagraph(SourceRow):
    """A gold paragraph of the StepSearch release."""

    title: str
    paragraph_text: str


class StepSearchRow(SourceRow):
    """The StepSearch release: for every sub-question its search queries and its gold paragraph."""

    id: str | StrictInt
    question: str
    final_answer: str
    answer_aliases: Annotated[list[str], BeforeValidator(records)] = Field(default_factory=list)
    sub_searchs: Annotated[list[list[str]], BeforeValidator(records)]
    sub_support_docs: Annotated[list[StepSearchParagraph], BeforeValidator(records)]


def parse(record: Record) -> Loaded:
    """Read a row of the authors' dataset, which has gold paragraphs only, with their queries. Raises RowRejected."""
    row = validate(StepSearchRow, with_reference_names(record))
    if not row.sub_support_docs:
        raise RowRejected("sub_support_docs is empty: there is nothing to search for")
    if row.sub_searchs and len(row.sub_searchs) != len(row.sub_support_docs):
        raise RowRejected(f"sub_searchs has {len(row.sub_searchs)} lists for {len(row.sub_support_docs)} paragraphs")
    paragraphs = [paragraph(p.title, p.paragraph_text) for p in row.sub_support_docs]
    gold = {p.passage_id: p for p in paragraphs}  # two sub-questions may share a paragraph
    queries: dict[str, list[str]] = {passage_id: [] for passage_id in gold}
    for of, written in zip(paragraphs, row.sub_searchs, strict=False):  # as many, or no queries at all
        queries[of.passage_id] += [query.strip() for query in written if query.strip()]
    question = Question(
        question_id=str(row.id),
        source="stepsearch",
        position=record.position,
        question=row.question.strip(),
        answer=row.final_answer,
        answer_aliases=row.answer_aliases,
        hops=len(gold),
        paragraph_ids=list(gold),
        supporting=[supporting(p, queries=queries[p.passage_id]) for p in gold.values()],
    )
    return question, list(gold.values())


def with_reference_names(record: Record) -> Record:
    """Rename a row's fields as in the authors' dataset. Raises RowRejected for a training row without its parts."""
    if "reward_model" not in record.fields:
        return record
    try:
        return Record(record.position, _of_training(record.fields))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise RowRejected("reward_model, extra_info or prompt is not as the authors' scripts write it") from None


def _of_training(fields: Mapping[str, Any]) -> dict[str, Any]:
    truth, extra = fields["reward_model"]["ground_truth"], fields["extra_info"]
    target = truth["target"]
    answer, *aliases = [target] if isinstance(target, str) else target
    return {
        "id": f"{fields['data_source']}_{extra['split']}_{extra['index']}",
        "question": extra.get("question") or _asked(fields["prompt"]),
        "final_answer": answer,
        "answer_aliases": aliases,
        "sub_searchs": truth.get("search_keys", []),
        "sub_support_docs": extra.get("support_docs", []),
    }


def _asked(prompt: Sequence[Mapping[str, str]]) -> str:
    """Return the question at the end of a prompt."""
    found = _QUESTION.fullmatch(prompt[-1]["content"])
    if not found:
        raise RowRejected("the prompt holds no 'Question:'")
    return found[1].strip()


DATASET = Dataset(
    name="stepsearch",
    doc="the StepSearch release: its dataset, and its training file",
    parse=parse,
    signatures=(frozenset({"sub_searchs", "sub_support_docs"}), frozenset({"reward_model", "extra_info"})),
)

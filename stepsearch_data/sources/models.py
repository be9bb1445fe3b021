"""The formats that questions come in, as their official files and their Hub copies write them.

The Hub's dialects are brought to the official form before validation: a list of records may come
as a record of lists, and any nested value as JSON text. Unknown extra fields are ignored, missing
or mistyped ones are errors.
"""

from typing import Annotated, Any

import orjson
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt


class _SourceRow(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def _records(value: Any) -> Any:
    """JSON text → value; a record of lists → a list of records."""
    if isinstance(value, str):
        value = orjson.loads(value)
    if isinstance(value, dict) and value and all(isinstance(items, list) for items in value.values()):
        names = list(value)
        return [dict(zip(names, items, strict=True)) for items in zip(*value.values(), strict=True)]
    return value


def _tuples(*orders: tuple[str, ...]) -> BeforeValidator:
    """Records → tuples, by the first order of field names that fits."""

    def convert(value: Any) -> Any:
        records = _records(value)
        if not isinstance(records, list):
            return records
        return [_tuple(record) if isinstance(record, dict) else record for record in records]

    def _tuple(record: dict[str, Any]) -> tuple[Any, ...]:
        order = next((names for names in orders if set(names) <= record.keys()), None)
        if order is None:
            raise ValueError(f"expected the fields {' or '.join(map(str, orders))}, got {sorted(record)}")
        return tuple(record[name] for name in order)

    return BeforeValidator(convert)


class MusiqueParagraph(_SourceRow):
    """A candidate paragraph of a MuSiQue question."""

    idx: StrictInt
    title: str
    paragraph_text: str
    is_supporting: StrictBool


class MusiqueStep(_SourceRow):
    """A step of MuSiQue's official decomposition."""

    question: str
    answer: str
    paragraph_support_idx: StrictInt | None = None


class MusiqueRow(_SourceRow):
    """MuSiQue v1.0, Ans and Full."""

    id: str
    paragraphs: Annotated[list[MusiqueParagraph], BeforeValidator(_records)]
    question: str
    question_decomposition: Annotated[list[MusiqueStep], BeforeValidator(_records)]
    answer: str
    answer_aliases: Annotated[list[str], BeforeValidator(_records)] = []
    answerable: StrictBool = True


class HotpotRow(_SourceRow):
    """HotpotQA v1. In the fullwiki setting, `context` is what was retrieved and may lack a gold paragraph."""

    id: str = Field(validation_alias=AliasChoices("_id", "id"))
    question: str
    answer: str
    supporting_facts: Annotated[list[tuple[str, StrictInt]], _tuples(("title", "sent_id"))]
    context: Annotated[list[tuple[str, list[str]]], _tuples(("title", "sentences"), ("title", "content"))]
    type: str
    level: str = ""


class TwoWikiRow(HotpotRow):
    """2WikiMultihopQA: HotpotQA's fields and evidence triples."""

    evidences: Annotated[
        list[tuple[str, str, str]],
        _tuples(("subject", "relation", "object"), ("fact", "relation", "entity")),
    ]
    evidences_id: Annotated[
        list[tuple[str | None, str, str | None]] | None,
        _tuples(("subject", "relation", "object"), ("fact", "relation", "entity")),
    ] = None
    answer_id: str | None = None


class AliasesRow(_SourceRow):
    """A line of 2Wiki's `id_aliases.json`: the other names of a Wikidata entity."""

    id: str = Field(validation_alias="Q_id")
    aliases: list[str] = []
    demonyms: list[str] = []


class StepSearchParagraph(_SourceRow):
    """A gold paragraph of the StepSearch release."""

    title: str
    paragraph_text: str


class StepSearchRow(_SourceRow):
    """The StepSearch release: for every sub-question its search queries and its gold paragraph."""

    id: str | StrictInt
    question: str
    final_answer: str
    answer_aliases: Annotated[list[str], BeforeValidator(_records)] = []
    sub_searchs: Annotated[list[list[str]], BeforeValidator(_records)]
    sub_support_docs: Annotated[list[StepSearchParagraph], BeforeValidator(_records)]


def _listed(value: Any) -> Any:
    """One answer → a list of it; JSON text of a list, as CSV files hold it → the list."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return [value]
    return [value] if isinstance(value, str) else value


class AskedRow(_SourceRow):
    """A question and its answers, under the names that FlashRAG, Search-R1, Bamboogle and official files have."""

    id: str | StrictInt | None = Field(default=None, validation_alias=AliasChoices("_id", "id"))
    question: str = Field(validation_alias=AliasChoices("question", "Question"), min_length=1)
    answers: Annotated[list[str], BeforeValidator(_listed)] = Field(
        validation_alias=AliasChoices("golden_answers", "Answer", "answer", "final_answer"), min_length=1
    )
    answer_aliases: Annotated[list[str], BeforeValidator(_records)] = []
    answer_id: str | None = None


class JsonlParagraph(_SourceRow):
    """A paragraph that comes with a user's question."""

    title: str
    text: str
    supporting: StrictBool = False


class JsonlHop(_SourceRow):
    """A hop of a user's question; `paragraph` is a position in `paragraphs`, from 0."""

    question: str
    answer: str
    paragraph: StrictInt


class JsonlRow(_SourceRow):
    """A user's own question: at least one paragraph must be marked as supporting, or named by a hop."""

    id: str
    question: str
    answer: str
    answer_aliases: list[str] = []
    paragraphs: list[JsonlParagraph]
    hops: list[JsonlHop] = []
    type: str = ""


class JsonlDocument(_SourceRow):
    """A line of a user's corpus that belongs to no question."""

    title: str
    text: str


SIGNATURES = {
    "musique": {"question_decomposition", "paragraphs"},
    "2wiki": {"evidences", "supporting_facts", "context"},
    "hotpotqa": {"supporting_facts", "context"},
    "stepsearch": {"sub_searchs", "sub_support_docs"},
    "jsonl": {"title", "text"},
}


def recognise(fields: set[str]) -> str | None:
    """The format whose own fields are all there; None where no format's are."""
    if {"reward_model", "extra_info"} <= fields:  # the release's training file
        return "stepsearch"
    if {"question", "paragraphs"} <= fields and "question_decomposition" not in fields:
        return "jsonl"
    return next((kind for kind, names in SIGNATURES.items() if names <= fields), None)

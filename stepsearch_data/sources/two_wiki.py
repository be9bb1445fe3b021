"""2WikiMultihopQA: HotpotQA's form with evidence triples, and a table of other names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated

from pydantic import Field

from stepsearch_data.rewards import wiki2_answer
from stepsearch_data.schemas.rows import Evidence
from stepsearch_data.sources.dataset import AliasTable, Dataset, Publication
from stepsearch_data.sources.hotpotqa import GOLD_ELSEWHERE, NO_SENTENCE, SIGNATURE, HotpotRow, from_context
from stepsearch_data.sources.record import Loaded, Record, SourceRow, tuples, validate

_TRIPLES = tuples(("subject", "relation", "object"), ("fact", "relation", "entity"))


class TwoWikiRow(HotpotRow):
    """2WikiMultihopQA: HotpotQA's fields and evidence triples."""

    evidences: Annotated[list[tuple[str, str, str]], _TRIPLES]
    evidences_id: Annotated[list[tuple[str | None, str, str | None]] | None, _TRIPLES] = None
    answer_id: str | None = None


class AliasesRow(SourceRow):
    """A line of `id_aliases.json`: the other names of a Wikidata entity."""

    id: str = Field(validation_alias="Q_id")
    aliases: list[str] = Field(default_factory=list)
    demonyms: list[str] = Field(default_factory=list)


def parse(record: Record) -> Loaded:
    """Read a 2WikiMultihopQA row. Raises RowRejected."""
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
    return from_context(record, row, "2wiki", evidences, row.answer_id or "", notes)


def names(record: Record) -> tuple[str, Sequence[str]]:
    """Read a Wikidata id and its aliases and demonyms. Raises RowRejected."""
    row = validate(AliasesRow, record)
    return row.id, (*row.aliases, *row.demonyms)


def score(prediction: str, golds: Sequence[str]) -> tuple[float, float]:
    """See `Score`: the official script takes the highest over all names."""
    em, f1, *_ = wiki2_answer(prediction, golds[0], "", {"": golds[1:]})
    return em, f1


DATASET = Dataset(
    name="2wiki",
    doc="2WikiMultihopQA v1.1",
    parse=parse,
    signatures=(SIGNATURE | {"evidences"},),
    score=score,
    publication=Publication(
        credit="2WikiMultihopQA by Ho, Duong Nguyen, Sugawara and Aizawa "
        "(https://github.com/Alab-NII/2wikimultihop), Apache-2.0",
        licence="apache-2.0",
        bibtex="""\
@inproceedings{2wikimultihopqa,
  title     = {Constructing A Multi-hop QA Dataset for Comprehensive Evaluation of Reasoning Steps},
  author    = {Ho, Xanh and Duong Nguyen, Anh-Khoa and Sugawara, Saku and Aizawa, Akiko},
  booktitle = {COLING},
  year      = {2020}
}""",
        tag="extended|other-2wikimultihopqa",
    ),
    data_source="2wikimultihopqa",
    released_as="hot_dataset",
    aliases=AliasTable("id_aliases.json", "Q_id, aliases and demonyms", names),
    notes={
        "supporting_facts": NO_SENTENCE,
        "evidences_id": "questions have other evidences_id than evidences; they were left out (questions.notes)",
    },
    gold_elsewhere=GOLD_ELSEWHERE,
)

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stepsearch_data.schemas.tables import QUESTIONS, TABLES, Table
from tests.builders import hit, query, question


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_has_a_meaning(table: Table[Any]) -> None:
    for field in table.schema:
        assert field.metadata[b"description"], field.name


def test_rows_survive_the_way_through_arrow() -> None:
    questions = next(table for table in TABLES if table.name == "questions")
    rows = [question("q1"), question("q2", answer_aliases=["Pisaurum"])]
    assert questions.adapter.validate_python(questions.to_arrow(rows).to_pylist()) == rows


def test_rows_are_made_when_they_are_asked_for_as_often_as_they_are() -> None:
    rows = [question("q1", position=1), question("q2", position=2), question("q3", position=2)]
    lazy = QUESTIONS.rows(QUESTIONS.to_arrow(rows))
    assert list(lazy) == list(lazy) == rows
    assert lazy[1:].where("position", 2) == [lazy[1], lazy[2]] == rows[1:]
    assert lazy[1:].column("question_id") == ["q2", "q3"]
    assert lazy[-1].model_copy(update={"answer": "else"}).model_dump() == {**rows[-1].model_dump(), "answer": "else"}


@pytest.mark.parametrize(
    "rows",
    [
        QUESTIONS.to_arrow([question()]).drop(["answer"]),
        pa.Table.from_pylist([{**question().model_dump(), "answer": None}], schema=QUESTIONS.schema),
        pa.Table.from_pylist([{**question().model_dump(), "supporting": [None]}], schema=QUESTIONS.schema),
        pa.Table.from_pylist([{**question().model_dump(), "answer_aliases": [None]}], schema=QUESTIONS.schema),
    ],
    ids=["column", "value", "nested row", "nested value"],
)
def test_rows_that_lack_something_are_refused(rows: pa.Table) -> None:
    with pytest.raises(pa.ArrowInvalid, match="questions holds rows of another form"):
        QUESTIONS.rows(rows)


def test_only_what_may_be_missing_is_nullable() -> None:
    hits = next(table for table in TABLES if table.name == "hits")
    missing = ["rank", "score", "passage_id", "title", "text", "url", "latency", "error"]
    assert [field.name for field in hits.schema if field.nullable] == missing
    assert hits.to_arrow([hit(query(), None, None)]).num_rows == 1


def test_nested_rows_become_structs() -> None:
    rounds = next(table for table in TABLES if table.name == "rounds")
    documents = rounds.schema.field("documents").type
    assert pa.types.is_list(documents)
    assert {documents.value_type.field(at).name for at in range(documents.value_type.num_fields)} >= {"rank", "is_gold"}


def without_evidence_ids(schema: pa.Schema) -> pa.Schema:
    """`questions` as an earlier version wrote it: without `notes`, and without ids in `evidences`."""
    fields = [field for field in schema if field.name != "notes"]
    evidences = pa.list_(pa.struct([(name, pa.string(), False) for name in ("subject", "relation", "object")]))
    named = pa.list_(evidences.value_field.with_name("element").with_nullable(False))
    return pa.schema([f.with_type(named) if f.name == "evidences" else f for f in fields])


def changed(schema: pa.Schema, name: str, field: pa.Field) -> pa.Schema:
    return schema.set(schema.get_field_index(name), field)


def test_a_table_of_an_earlier_version_fits_and_another_one_does_not() -> None:
    questions = next(table for table in TABLES if table.name == "questions")
    schema = questions.schema
    earlier = without_evidence_ids(schema)
    assert questions.fits(schema)
    assert questions.fits(earlier)
    row = {name: value for name, value in question("q1").model_dump().items() if name in earlier.names}
    assert questions.from_arrow(pa.Table.from_pylist([row], schema=earlier)) == [question("q1")]
    wrong = [
        schema.remove(schema.get_field_index("answer")),
        schema.append(pa.field("more", pa.string())),
        pa.schema(reversed(list(schema))),
        changed(schema, "hops", pa.field("hops", pa.string(), nullable=False)),
        changed(schema, "answer", pa.field("answer", pa.string())),
        changed(schema, "evidences", pa.field("evidences", pa.list_(pa.string()), nullable=False)),
        changed(schema, "evidences", pa.field("evidences", pa.string(), nullable=False)),
    ]
    assert [questions.fits(other) for other in wrong] == [False] * len(wrong)

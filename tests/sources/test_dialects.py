"""Every dialect of a format means the same row; anything else is an error, never a guess."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from stepsearch_data.sources.dataset import recognise
from stepsearch_data.sources.hotpotqa import HotpotRow
from stepsearch_data.sources.jsonl import JsonlRow
from stepsearch_data.sources.musique import MusiqueRow
from stepsearch_data.sources.two_wiki import TwoWikiRow
from tests import rows
from tests.rows import Row

Dialect = Callable[[list[Any], tuple[str, ...]], Any]

HOTPOT = rows.hotpotqa("h")
WIKI = rows.two_wiki("w")
MUSIQUE = rows.musique("2hop__1")


def records(values: list[Any], names: tuple[str, ...]) -> list[Row]:
    return [dict(zip(names, value, strict=True)) for value in values]


def record_of_lists(values: list[Any], names: tuple[str, ...]) -> Row:
    return {name: [value[at] for value in values] for at, name in enumerate(names)}


def text(values: list[Any], names: tuple[str, ...]) -> str:
    return json.dumps(values)


def text_of_records(values: list[Any], names: tuple[str, ...]) -> str:
    return json.dumps(records(values, names))


def text_of_lists(values: list[Any], names: tuple[str, ...]) -> str:
    return json.dumps(record_of_lists(values, names))


dialects = pytest.mark.parametrize("write", [records, record_of_lists, text, text_of_records, text_of_lists])
as_json = pytest.mark.parametrize("from_json", [False, True], ids=["python", "json"])


def read(model: type[BaseModel], row: Row, *, from_json: bool = False) -> BaseModel:
    return model.model_validate_json(json.dumps(row)) if from_json else model.model_validate(row)


@dialects
@as_json
@pytest.mark.parametrize("sentences", ["sentences", "content"])
def test_hotpotqa_dialects(write: Dialect, from_json: bool, sentences: str) -> None:
    row = HOTPOT | {
        "supporting_facts": write(HOTPOT["supporting_facts"], ("title", "sent_id")),
        "context": write(HOTPOT["context"], ("title", sentences)),
    }
    assert read(HotpotRow, row, from_json=from_json) == read(HotpotRow, HOTPOT)


@dialects
@as_json
@pytest.mark.parametrize("names", [("subject", "relation", "object"), ("fact", "relation", "entity")])
def test_two_wiki_dialects(write: Dialect, from_json: bool, names: tuple[str, ...]) -> None:
    row = WIKI | {"evidences": write(WIKI["evidences"], names)}
    assert read(TwoWikiRow, row, from_json=from_json) == read(TwoWikiRow, WIKI)


@as_json
@pytest.mark.parametrize("as_text", [False, True])
def test_musique_dialects(from_json: bool, as_text: bool) -> None:
    lists: Row = {
        name: {key: [record[key] for record in MUSIQUE[name]] for key in MUSIQUE[name][0]}
        for name in ("paragraphs", "question_decomposition")
    }
    lists["answer_aliases"] = ["Pesaro, Italy"]
    dialect = {name: json.dumps(value) for name, value in lists.items()} if as_text else lists
    expected = read(MusiqueRow, MUSIQUE | {"answer_aliases": ["Pesaro, Italy"]})
    assert read(MusiqueRow, MUSIQUE | dialect, from_json=from_json) == expected


def test_id_is_called_either_name() -> None:
    row = {("id" if name == "_id" else name): value for name, value in HOTPOT.items()}
    assert read(HotpotRow, row) == read(HotpotRow, HOTPOT)


def test_what_a_file_may_leave_out() -> None:
    bare = {name: value for name, value in MUSIQUE.items() if name not in ("answer_aliases", "answerable")}
    row = MusiqueRow.model_validate(bare)
    assert (row.answer_aliases, row.answerable) == ([], True)
    assert JsonlRow.model_validate(rows.jsonl("j")).hops == []
    assert HotpotRow.model_validate({k: v for k, v in HOTPOT.items() if k != "level"}).level == ""


def test_unknown_fields_are_ignored() -> None:
    assert read(HotpotRow, HOTPOT | {"entity_ids": "Q1_Q2"}) == read(HotpotRow, HOTPOT)


WRONG: list[Any] = [None, 5, 1.5, True, "", "no JSON", "5", "null", {}, {"title": 5, "sent_id": 3}, [5], [[]], [{}]]


@pytest.mark.parametrize("wrong", [*WRONG, {"title": ["a"], "sent_id": []}, [["a", "b", "c"]], [["a", None]]])
@pytest.mark.parametrize("field", ["supporting_facts", "context"])
@as_json
def test_mistyped_nested_field_is_an_error(field: str, wrong: Any, from_json: bool) -> None:
    with pytest.raises(ValidationError) as caught:
        read(HotpotRow, HOTPOT | {field: wrong}, from_json=from_json)
    assert caught.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize("field", ["paragraphs", "question_decomposition", "answer_aliases"])
@pytest.mark.parametrize("wrong", WRONG[:9])
def test_mistyped_musique_field_is_an_error(field: str, wrong: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        read(MusiqueRow, MUSIQUE | {field: wrong})
    assert caught.value.errors()[0]["loc"][0] == field


def test_record_without_the_expected_names_says_which() -> None:
    with pytest.raises(ValidationError, match=r"title.*sent_id.*got \['sentence', 'title'\]"):
        read(HotpotRow, HOTPOT | {"supporting_facts": [{"title": "a", "sentence": 0}]})


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (MUSIQUE, "musique"),
        (HOTPOT, "hotpotqa"),
        (WIKI, "2wiki"),
        (rows.jsonl("j"), "jsonl"),
        ({"id": "a", "question": "b", "answer": "c"}, None),
        ({}, None),
    ],
    ids=["musique", "hotpotqa", "2wiki", "jsonl", "unknown", "empty"],
)
def test_recognise(row: Row, kind: str | None) -> None:
    assert recognise(set(row)) == ([kind] if kind else [])


def test_documents_are_told_as_what_both_kinds_take() -> None:
    assert recognise({"title", "text"}) == ["jsonl", "corpus"]
    assert recognise({"id", "contents"}) == ["corpus"]

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue

from stepsearch_data.stages.model.replies import Decomposition, Judgement, QueryList
from stepsearch_data.stages.model.structured import Invalid, parse_json

# The reply is what stands behind the last `</think>`, also one that a string holds.
TEXT = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "</think>" not in text)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PROSE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='{}"`<>'))


class Found(BaseModel):
    payload: JsonValue


@given(payload=JSON, before=PROSE, after=PROSE, indent=st.sampled_from([None, 2]))
@pytest.mark.parametrize(
    "form",
    [
        "{0}",
        "{1}{0}{2}",
        "{1}\n```json\n{0}\n```\n{2}",
        "```\n{0}```",
        "```json\n{0}",
        "<think>{1}</think>{0}",
        '<think>{1}{{"payload": 0}}</think>\n```json\n{0}\n```{2}',
        "{1}</think>{0}{2}",
        '{1} {{}} {{"other": 1}} {0}',
        r"\frac{{{{a}}}}{{{{b}}}} {0}",
        "[{0}]",
    ],
)
def test_an_object_is_found_in_any_wrapping(
    form: str, payload: JsonValue, before: str, after: str, indent: int | None
) -> None:
    text = json.dumps({"payload": payload}, ensure_ascii=False, indent=indent)
    assert parse_json(form.format(text, before, after), Found).payload == payload


def test_a_fenced_object_goes_before_an_embedded_one() -> None:
    text = 'Not {"queries": ["a"]} but\n```json\n{"queries": ["b"]}\n```'
    assert parse_json(text, QueryList).queries == ["b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the reply is empty"),
        (" \n", "the reply is empty"),
        ('<think>I wonder {"queries": ["a"]}', "the reply is empty"),
        ("I'm sorry, I can't help with that.", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ("null", "no JSON object"),
        ('{"queries": ["a", "b', "EOF while parsing"),
        ('Here: {"queries": ["a",', "EOF while parsing"),
        ('{"queries": "a"}', "queries: Input should be a valid array"),
        ('{"queries": [true]}', "queries.0: Input should be a valid string"),
        ('{"queris": []}', "queries: Field required"),
        ('{"queries": ["a\\u0000b"]}', "NUL"),
        ('{"queries": ["\\ud800"]}', "Invalid JSON"),
    ],
)
def test_what_cannot_be_read_is_said_in_words(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        parse_json(text, QueryList)


def test_few_of_many_errors_are_listed() -> None:
    with pytest.raises(Invalid) as error:
        parse_json(json.dumps({"queries": [None] * 1000}), QueryList)
    assert str(error.value).count("queries.") == 5
    assert str(error.value).endswith("; and 995 more")


def test_lenient_where_it_does_no_harm() -> None:
    text = (
        '{"steps": [{"question": " When\\n was it? ", "answer": 1954, "depends_on": [], "paragraph": "1", "why": 0}]}'
    )
    step = parse_json(text, Decomposition).steps[0]
    assert (step.question, step.answer, step.paragraph) == ("When was it?", "1954", 1)


def test_a_raw_lone_surrogate_is_replaced() -> None:
    assert parse_json('{"queries": ["a\ud800b"]}', QueryList).queries == ["a?b"]


@pytest.mark.parametrize(
    "text",
    [
        "{" * 10_000_000,
        '{"a":' * 2_000_000,
        "<think>" * 1_500_000,
        "```" * 3_000_000,
        " " * 10_000_000,
        '{"queries": ["' + "a" * 10_000_000 + '"]}',
        "{" * 999_999,
        '{"a":' * 199_999,
        '{"a' * 300_000,
        '{"a":"' + 'x{\\"' * 249_990,
        "{" + " " * 999_990,
        "```" * 333_333,
        '{"queries": [' + "9" * 900_000 + "]}",
        '{"score": 1' + "0" * 900_000 + "}",
        '{"queries": ' + "[" * 900_000,
    ],
    ids=lambda text: text[:15],
)
@pytest.mark.parametrize("model", [QueryList, Judgement])
def test_a_huge_or_hostile_reply_costs_little(text: str, model: type[BaseModel]) -> None:
    begun = time.perf_counter()
    with pytest.raises(Invalid) as error:
        parse_json(text, model)
    assert time.perf_counter() - begun < 2
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("model", [Decomposition, QueryList, Judgement])
def test_a_schema_is_closed_and_holds_no_wording(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    shapes = [schema, *schema.get("$defs", {}).values()]
    assert all(shape["additionalProperties"] is False for shape in shapes)
    assert all(set(shape["required"]) == set(shape["properties"]) for shape in shapes)
    assert "title" not in json.dumps(schema)
    assert "description" not in json.dumps(schema)

"""What pydantic finds wrong, told in plain words and short lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from stepsearch_data.core.validation import fault_and_value, in_words, shortened


def refuse_all(_: Any) -> Any:
    raise ValueError("nothing is good enough")


class Model(BaseModel):
    number: float = Field(default=1, gt=0, le=9)
    path: Path = Path()
    names: list[str] = []
    ours: Annotated[str, AfterValidator(refuse_all)] | None = None


def error(**fields: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Model(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"number": 10}, "number: Input should be less than or equal to 9"),
        ({"number": float("nan")}, "number: Input should be a number"),
        ({"path": 5}, "path: Input should be a path"),
        ({"names": ["a", 1]}, "names.1: Input should be a valid string"),
        ({"ours": "x"}, "ours: nothing is good enough"),
    ],
)
def test_a_fault_is_told_without_pydantics_own_names(fields: dict[str, Any], words: str) -> None:
    assert in_words(error(**fields)) == words


def test_a_few_faults_are_told_and_the_others_counted() -> None:
    many = error(names=[1] * 50)
    assert in_words(many).endswith("; and 47 more")
    assert in_words(many, most=1) == "names.0: Input should be a valid string"


@pytest.mark.parametrize("value", ["x" * 9_000, ["x" * 9_000] * 9_000, {"a" * 9_000: [[[[[[]]]]]]}, 9**3_000])
def test_what_was_given_is_shown_short(value: Any) -> None:
    told = in_words(error(number=value), fault_and_value)
    assert told.startswith("number: Input should be ")
    assert "(got " in told
    assert len(told) < 300


def test_a_long_text_keeps_both_ends() -> None:
    assert shortened("a" * 500 + "b" * 500, 11) == "aaaaa…bbbbb"
    assert shortened("short") == "short"

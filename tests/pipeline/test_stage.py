"""A recipe holds what decides a stage's rows, and says what changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from stepsearch_data.pipeline.stage import Stage, differences, digest
from stepsearch_data.schemas.tables import TABLES
from stepsearch_data.stages import STAGES
from tests.pipeline.tiny import COUNT, COUNTS, SIGN, SignConfig

RECIPE = SIGN.recipe(SignConfig(), {"numbers": "abc"})


def test_a_recipe_holds_version_config_inputs_and_schemas() -> None:
    assert RECIPE["version"] == 1
    assert RECIPE["config"] == {"flip": False, "note": None}
    assert RECIPE["inputs"] == {"numbers": "abc"}
    assert "value: int64 not null" in RECIPE["outputs"]["signs"]


def test_equal_recipes_have_one_digest_whatever_the_order_of_their_keys() -> None:
    assert digest(RECIPE) == digest(dict(reversed(RECIPE.items())))
    assert len(digest(RECIPE)) == 12


@pytest.mark.parametrize(
    "other",
    [
        replace(SIGN, version=2).recipe(SignConfig(), {"numbers": "abc"}),
        replace(SIGN, writes=(COUNTS,)).recipe(SignConfig(), {"numbers": "abc"}),
        SIGN.recipe(SignConfig(flip=True), {"numbers": "abc"}),
        SIGN.recipe(SignConfig(), {"numbers": "abd"}),
        SIGN.recipe(SignConfig(), {}),
    ],
    ids=["version", "schema", "config", "input", "no input"],
)
def test_everything_in_a_recipe_changes_its_digest(other: dict[str, object]) -> None:
    assert digest(other) != digest(RECIPE)
    assert differences(RECIPE, other)


def test_the_words_that_describe_a_column_are_no_part_of_a_recipe() -> None:
    assert COUNT.recipe(COUNT.config(), {})["outputs"]["counts"] == "sign: int64 not null\ntimes: int64 not null"
    schemas = [table.schema for table in TABLES]
    assert all(b"description" in field.metadata for schema in schemas for field in schema)
    assert not any("description" in shape for stage in STAGES for shape in recipe_of(stage)["outputs"].values())


def recipe_of(stage: Stage) -> dict[str, Any]:
    return stage.recipe(stage.config(), {})


def test_differences_name_the_field_and_both_values() -> None:
    changed = replace(SIGN, version=2).recipe(SignConfig(flip=True, note="n"), {"others": "abc"})
    assert differences(RECIPE, changed) == [
        "config.flip: False → True",
        "config.note: absent → n",
        "inputs.numbers: abc → absent",
        "inputs.others: absent → abc",
        "version: 1 → 2",
    ]


def test_equal_recipes_do_not_differ() -> None:
    assert differences(RECIPE, SIGN.recipe(SignConfig(), {"numbers": "abc"})) == []


def test_long_values_are_cut() -> None:
    (line,) = differences(RECIPE, SIGN.recipe(SignConfig(note="x" * 1000), {"numbers": "abc"}))
    assert line.endswith("xxx…")
    assert len(line) < 200


def test_a_stage_config_is_strict_and_immutable() -> None:
    with pytest.raises(ValidationError):
        SignConfig(filp=True)  # type: ignore[call-arg]  # the mistake is the test
    with pytest.raises(ValidationError):
        SignConfig().flip = True  # type: ignore[misc]  # the mistake is the test

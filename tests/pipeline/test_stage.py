"""A recipe holds what decides a stage's rows, and says what changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from stepsearch_data.pipeline.stage import differences, digest
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


def test_a_column_described_differently_is_another_recipe() -> None:
    """Descriptions are in the Parquet files, so they decide bytes."""
    assert "description" in COUNT.recipe(COUNT.config(), {})["outputs"]["counts"]


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

"""A fingerprint holds what decides a stage's rows, and says what changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from stepsearch_data.pipeline.stage import Stage, differences, digest
from stepsearch_data.schemas.tables import TABLES
from stepsearch_data.stages import STAGES
from tests.pipeline.tiny import COUNT, COUNTS, SIGN, SignConfig

FINGERPRINT = SIGN.fingerprint(SignConfig(), {"numbers": "abc"})


def test_a_fingerprint_holds_version_config_inputs_and_schemas() -> None:
    assert FINGERPRINT["version"] == 1
    assert FINGERPRINT["config"] == {"flip": False, "note": None}
    assert FINGERPRINT["inputs"] == {"numbers": "abc"}
    assert "value: int64 not null" in FINGERPRINT["outputs"]["signs"]


def test_equal_fingerprints_have_one_digest_whatever_the_order_of_their_keys() -> None:
    assert digest(FINGERPRINT) == digest(dict(reversed(FINGERPRINT.items())))
    assert len(digest(FINGERPRINT)) == 12


@pytest.mark.parametrize(
    "other",
    [
        replace(SIGN, version=2).fingerprint(SignConfig(), {"numbers": "abc"}),
        replace(SIGN, writes=(COUNTS,)).fingerprint(SignConfig(), {"numbers": "abc"}),
        SIGN.fingerprint(SignConfig(flip=True), {"numbers": "abc"}),
        SIGN.fingerprint(SignConfig(), {"numbers": "abd"}),
        SIGN.fingerprint(SignConfig(), {}),
    ],
    ids=["version", "schema", "config", "input", "no input"],
)
def test_everything_in_a_fingerprint_changes_its_digest(other: dict[str, object]) -> None:
    assert digest(other) != digest(FINGERPRINT)
    assert differences(FINGERPRINT, other)


def test_the_words_that_describe_a_column_are_no_part_of_a_fingerprint() -> None:
    assert COUNT.fingerprint(COUNT.config(), {})["outputs"]["counts"] == "sign: int64 not null\ntimes: int64 not null"
    schemas = [table.schema for table in TABLES]
    assert all(b"description" in field.metadata for schema in schemas for field in schema)
    assert not any("description" in shape for stage in STAGES for shape in fingerprint_of(stage)["outputs"].values())


def fingerprint_of(stage: Stage) -> dict[str, Any]:
    return stage.fingerprint(stage.config(), {})


def test_differences_name_the_field_and_both_values() -> None:
    changed = replace(SIGN, version=2).fingerprint(SignConfig(flip=True, note="n"), {"others": "abc"})
    assert differences(FINGERPRINT, changed) == [
        "config.flip: False → True",
        "config.note: absent → n",
        "inputs.numbers: abc → absent",
        "inputs.others: absent → abc",
        "version: 1 → 2",
    ]


def test_equal_fingerprints_do_not_differ() -> None:
    assert differences(FINGERPRINT, SIGN.fingerprint(SignConfig(), {"numbers": "abc"})) == []


def test_long_values_are_cut() -> None:
    (line,) = differences(FINGERPRINT, SIGN.fingerprint(SignConfig(note="x" * 1000), {"numbers": "abc"}))
    assert line.endswith("xxx…")
    assert len(line) < 200


def test_a_stage_config_is_strict_and_immutable() -> None:
    with pytest.raises(ValidationError):
        SignConfig(filp=True)  # type: ignore[call-arg]  # the mistake is the test
    with pytest.raises(ValidationError):
        SignConfig().flip = True  # type: ignore[misc]  # the mistake is the test

"""The options that a policy which plays has, alike in `eval` and `rollouts`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from typer.main import get_command

from stepsearch_data.cli import app
from stepsearch_data.cli.playing import Playing

GROUP: Any = get_command(app)


@pytest.mark.parametrize(
    ("verb", "defaults"),
    [("eval", {"samples": 1, "temperature": 0.0}), ("rollouts", {"samples": 8, "temperature": 1.0})],
)
def test_every_field_is_an_option_with_its_default(verb: str, defaults: dict[str, float]) -> None:
    options = {option.name: option.default for option in GROUP.commands[verb].params}
    assert "playing" not in options
    wanted = {field.name: defaults.get(field.name, field.default) for field in fields(Playing)}
    assert {name: options[name] for name in wanted} == wanted

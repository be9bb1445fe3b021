"""A command that is forked does what one does that starts from nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import starter


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        (["sql", "-", "--store", "{store}", "--format", "csv"], "SELECT count(*) AS é FROM rounds", 0),
        (["sql", "SELECT", "--store", "{store}"], "", 1),
        (["explain", "--stor"], "", 2),
        (["status"], "", 1),  # names the folder that it runs in
    ],
)
def test_a_fork_prints_and_ends_as_a_fresh_process(
    arguments: list[str], stdin: str, code: int, sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.format(store=sample_store) for argument in arguments]
    environment = {**os.environ, "COLUMNS": "150"}
    forked = starter.run(given, environment, stdin)
    alone = starter.fresh(given, environment, stdin)
    assert (forked.returncode, forked.stdout, forked.stderr) == (code, alone.stdout, alone.stderr)
    assert alone.returncode == code


def test_a_fork_has_an_environment_of_its_own(
    sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # who has typed `make build` has a store beside the tests
    named = {**os.environ, "STEPSEARCH_STORE": str(sample_store)}
    assert starter.run(["sql", "SELECT 1"], named, "").returncode == 0
    assert "STEPSEARCH_STORE" not in os.environ
    without = {name: value for name, value in named.items() if name != "STEPSEARCH_STORE"}
    assert "there is no store" in starter.run(["sql", "SELECT 1"], without, "").stderr

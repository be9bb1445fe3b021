"""Files of rollouts: whose they are, and what of a line is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.sources.rollouts import policy_file, read_rollout


def test_a_policy_is_named_or_called_as_its_folder(tmp_path: Path) -> None:
    (tmp_path / "qwen").mkdir()
    file = tmp_path / "qwen" / "rollouts.jsonl"
    assert policy_file(str(tmp_path / "qwen")) == policy_file(str(file)) == ("qwen", file)
    assert policy_file(f"mine={tmp_path / 'qwen'}") == ("mine", file)
    assert policy_file("dumps/7.jsonl") == ("7", Path("dumps/7.jsonl"))


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"id": "1"}', b'{"response": "x"}'])
def test_a_line_that_is_no_rollout_is_none(line: bytes) -> None:
    assert read_rollout(line) is None


def test_a_line_may_spell_its_fields_otherwise() -> None:
    row = read_rollout(b'{"question_id": 7, "output": "x", "gts": {"target": "Ada"}}')
    assert row
    assert (row.id, row.responses, row.target) == ("7", ["x"], ["Ada"])

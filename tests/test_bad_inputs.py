"""Whatever the command line is given, it says what is wrong: no traceback, no hang, bounded memory, no row lost.

`BAD_SEED` and `BAD_COUNT` in the environment try others, and more; `python -m tests.bad.run` tries some of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bad.case import Case
from tests.bad.families import bad_rollouts, bad_settings, bad_source
from tests.bad.judge import judge
from tests.bad.process import KEY, Done

ROOT = Path(__file__).resolve().parents[1]
SEED = int(os.environ.get("BAD_SEED", "1"))
COUNT = int(os.environ.get("BAD_COUNT", "1000"))
PARTS = 4
WELL = Done(code=1, signal=0, hung=False, seconds=0.1, memory=1 << 20, out=b"", err="error: there is no store\n")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits of memory")
@pytest.mark.parametrize("part", range(PARTS))
def test_bad_input_is_told_and_never_a_traceback(part: int) -> None:
    options = ["--seed", str(SEED), "--count", str(COUNT), "--part", f"{part}/{PARTS}"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.bad.run", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    *failed, last = map(json.loads, done.stdout.splitlines())
    assert failed == []
    assert last == {"tried": len(range(part, COUNT, PARTS)), "failed": 0}


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        ({}, None),
        ({"hung": True}, "it hung"),
        ({"signal": 11}, "ended by signal 11"),
        ({"code": 70}, "exit code 70"),
        ({"memory": 2 << 30}, "2048 MiB of memory"),
        ({"err": "Traceback (most recent call last):\n"}, "stderr: Traceback"),
        ({"err": "error: expected <class 'pathlib.Path'>\n"}, "stderr: <class '"),
        ({"err": f"error: {'x' * 2_000}\n"}, "stderr: a long line"),
        ({"err": "error: \x1b[31m\n"}, "stderr: a control character"),
        ({"err": f"error: {KEY}\n"}, "a key is shown"),
        ({"err": ""}, "it failed, and does not say why"),
    ],
)
def test_what_is_bad_is_seen(ended: dict[str, Any], fault: str | None) -> None:
    assert judge(Case(["status"]), replace(WELL, **ended)) == ([fault] if fault else [])


def test_a_lost_row_is_seen(tmp_path: Path) -> None:
    pq.write_table(pa.table({"position": [1, 1, 4]}), tmp_path / "x.parquet")
    (tmp_path / "x.rejects.jsonl").write_text('{"position": 2}\n')
    case = Case(["score"], rows=3, scored=str(tmp_path / "x"))
    assert judge(case, replace(WELL, code=3)) == []
    assert judge(replace(case, rows=4), replace(WELL, code=3)) == ["3 of 4 rows are found again"]


@pytest.mark.parametrize("family", [bad_source, bad_settings, bad_rollouts])
def test_the_same_seed_makes_the_same_input(family: Any, tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        folder = tmp_path / "case"
        folder.mkdir()
        cases = [family(Random(f"7:{number}"), tmp_path, folder) for number in range(20)]
        made.append((cases, {path.name: path.read_bytes() for path in folder.iterdir()}))
        folder.rename(tmp_path / f"was-{len(made)}")
    assert made[0] == made[1]

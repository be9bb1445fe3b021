"""Whatever the command line is given, it says what is wrong: no traceback, no hang, bounded memory, no row lost.

`BAD_SEED` and `BAD_COUNT` in the environment try others, and more; `python -m tests.bad.run` tries some of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits of memory")]

ROOT = Path(__file__).resolve().parents[1]
SEED = int(os.environ.get("BAD_SEED", "1"))
COUNT = int(os.environ.get("BAD_COUNT", "1000"))
PARTS = 4


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
    *failed, last = map(json.loads, done.stdout.splitlines())
    assert failed == []
    assert last == {"tried": len(range(part, COUNT, PARTS)), "failed": 0}, done.stderr
    assert done.stderr == ""

"""How fast a command starts: which slow libraries it imports, and which it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = {
    *("torch", "polars", "duckdb", "pyarrow", "pyarrow.dataset", "numpy", "numba", "bm25s", "pydantic", "aiohttp"),
    *("openai", "httpx2", "datasets", "huggingface_hub", "vl_convert", "asyncio", "rich.progress", "typer.rich_utils"),
}


@pytest.mark.parametrize(
    ("command", "slow"),
    [
        ("--version", set()),
        ("--help", {"typer.rich_utils"}),
        ("status", {"asyncio", "numpy", "pyarrow", "pydantic"}),
        ("sql 'SELECT 1'", {"asyncio", "duckdb", "numpy", "pyarrow", "pydantic"}),
        ("show", {"asyncio", "numpy", "polars", "pyarrow", "pydantic"}),
    ],
)
def test_a_command_imports_only_what_it_needs(command: str, slow: set[str], sample_store: Path) -> None:
    """In both processes of `sql`: each prints what it imports."""
    script = f"{sys.executable} -X importtime -m stepsearch_data {command}"
    done = subprocess.run(["bash", "-c", script], cwd=sample_store.parent, capture_output=True, text=True, check=True)
    imported = re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert SLOW & {*imported} == slow

"""Reports for tests in a browser, and what their pages say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepsearch_data.pipeline.store import Store
from stepsearch_data.sql import query
from tests.browser import Browser
from tests.conftest import run_cli

EVIL = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>\u2028"


def build(store: Path, *sources: str) -> Path:
    built = run_cli("build", "--quiet", "--store", store, *sources)
    assert built.returncode == 0, built.stderr
    return store


def write_report(store: Path, folder: Path, *flags: str) -> str:
    """Address of the report of a store."""
    made = run_cli("report", "--quiet", "--store", store, "--output", folder / "report", *flags)
    assert made.returncode == 0, made.stderr
    return (folder / "report/index.html" if "--folder" in flags else folder / "report.html").as_uri()


@contextmanager
def viewing(store: Path, *flags: str) -> Iterator[str]:
    """Address at which `view` shows a store."""
    command = [
        sys.executable,
        "-m",
        "stepsearch_data",
        "view",
        "--port",
        "0",
        "--no-open",
        "--store",
        str(store),
        *flags,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert found, said + process.stderr.read()
        try:
            yield found[0]
        finally:
            process.terminate()


def rows(store: Path, sql: str) -> list[dict[str, Any]]:
    """What the store itself tells."""
    with query(Store(store), sql) as batches:
        found: list[dict[str, Any]] = batches.read_all().to_pylist()
    return found


def questions(browser: Browser) -> list[str]:
    return browser.texts(".row a")


def numbers(browser: Browser, selector: str) -> list[float]:
    return [float(text.replace("−", "-")) for text in browser.texts(selector)]


def total(browser: Browser) -> str:
    return " ".join(browser.texts("#results .total"))

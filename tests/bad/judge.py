"""What must be true when a command has ended, whatever it was given."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from tests.bad.case import Case
from tests.bad.process import KEY, Done

CODES = {0, 1, 2, 3, 4, 5, 130}
MEMORY = 1_500 << 20
_LONGEST = 1_000  # characters of a line
_INTERNAL = re.compile(
    r"Traceback|Exception ignored|Unclosed |<class '|<function |object at 0x|pydantic|RecursionError|PosixPath\("
    r"|Warning: |never awaited|errors occurred"
)
_CONTROLS = re.compile(r"(?m)^(error|hint): .*[\x00-\x08\x0b-\x1f\x7f]")


def judge(case: Case, done: Done) -> list[str]:
    """What is wrong with how the command ended."""
    faults = [*_ended(case, done), *_said(case, done)]
    if not faults and done.code in {0, 3}:
        faults += _rows_lost(case)
    return faults


def _ended(case: Case, done: Done) -> Iterator[str]:
    if done.hung:
        yield "it hung"
    elif done.signal:
        yield f"ended by signal {done.signal}"
    elif done.code not in CODES:
        yield f"exit code {done.code}"
    if done.memory > MEMORY:
        yield f"{done.memory >> 20} MiB of memory"
    if case.works and done.code not in ({0, 130} if case.stop else {0, 3}):
        yield "it does not work"


def _said(case: Case, done: Done) -> Iterator[str]:
    internal = _INTERNAL.search(done.err)
    if internal:
        yield f"stderr: {internal[0]}"
    if _CONTROLS.search(done.err):
        yield "stderr: a control character"
    if any(len(line) > _LONGEST for line in done.err.splitlines()):
        yield "stderr: a long line"
    if KEY in done.err or KEY.encode() in done.out:
        yield "a key is shown"
    if done.code and not (done.err.strip() or done.out.strip() or case.stdout == "broken"):
        yield "it failed, and does not say why"


def _rows_lost(case: Case) -> Iterator[str]:
    if case.rows is not None:
        found = found_again(case)
        if found != case.rows:
            yield f"{found} of {case.rows} rows are found again"
    if case.store:
        yield from _questions_lost(Path(case.store))


def found_again(case: Case) -> int:
    """How many of the input's rows the output accounts for."""
    if case.scored:
        scored = set(_read(Path(f"{case.scored}.parquet"), "position"))
        return len(scored | {row["position"] for row in _lines(Path(f"{case.scored}.rejects.jsonl"))})
    if case.indexed:
        manifest = json.loads((Path(case.indexed) / "manifest.json").read_bytes())
        return int(manifest["documents"]) + len(_lines(Path(case.indexed) / "rejects.jsonl"))
    questions, rejects = (_column(Path(case.store), "load", name, "position") for name in ("loaded", "rejects"))
    return len({*questions, *rejects}) + _documents(case)


def _documents(case: Case) -> int:
    """Rows of a JSON Lines source that are documents: they went to the paragraphs, and are nobody's question."""
    kind, _, file = case.argv[case.argv.index("--source") + 1].partition("=")
    if kind != "jsonl" or Path(file).suffix in {".gz", ".bz2", ".zst", ".parquet"}:
        return 0
    texts = set(_column(Path(case.store), "load", "paragraphs", "text"))
    text = Path(file).read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
    lines = json.loads(text) if text.startswith(b"[") else map(_loaded, text.split(b"\n"))
    return sum(isinstance(row, dict) and "question" not in row and row.get("text") in texts for row in lines)


def _loaded(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _questions_lost(store: Path) -> list[str]:
    """Questions that were loaded, and are neither in the trajectories nor rejected by a later stage."""
    stages = json.loads((store / "manifest.json").read_bytes())["stages"]
    if "trajectories" not in stages:
        return []
    loaded = set(_column(store, "load", "loaded", "question_id"))
    told = set(_column(store, "trajectories", "trajectories", "question_id"))
    for stage in stages:
        told |= set(_column(store, stage, "rejects", "question_id"))
    return [f"questions are lost: {sorted(loaded - told)[:5]}"] if loaded - told else []


def _column(store: Path, stage: str, table: str, column: str) -> list[Any]:
    outputs = json.loads((store / "manifest.json").read_bytes())["stages"][stage]["outputs"]
    return _read(store / outputs[table]["path"], column)


def _read(path: Path, column: str) -> list[Any]:
    """Without a thread: this process is forked later on."""
    with pq.ParquetFile(path) as file:
        values: list[Any] = file.read(columns=[column], use_threads=False)[column].to_pylist()
    return values


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

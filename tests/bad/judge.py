"""What must be true when a command has ended, whatever it was given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq

from tests.bad.case import Case

if TYPE_CHECKING:
    from tests.bad.run import Done

CODES = {0, 1, 2, 3, 4, 5, 130}
MEMORY = 1_500 << 20
_LINE = 1_000  # characters of a line that says what is wrong
_INTERNAL = re.compile(
    r"Traceback|Exception ignored|Unclosed |<class '|<function |object at 0x|pydantic|RecursionError|PosixPath\("
    r"|Warning: |never awaited|errors occurred"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def judge(case: Case, done: Done, folder: Path, key: str) -> list[str]:
    """What is wrong with how the command ended."""
    faults = []
    if done.hung:
        faults.append("it hung")
    elif done.signal:
        faults.append(f"ended by signal {done.signal}")
    elif done.code not in CODES:
        faults.append(f"exit code {done.code}")
    if done.memory > MEMORY:
        faults.append(f"{done.memory >> 20} MiB of memory")
    internal = _INTERNAL.search(done.err)
    if internal:
        faults.append(f"stderr: {internal[0]}")
    controls = _CONTROLS.search(done.err)
    if controls:
        faults.append(f"stderr: the control character {controls[0]!r}")
    if any(len(line) > _LINE for line in done.err.splitlines()):
        faults.append("stderr: a long line")
    if key in done.err or key.encode() in done.out:
        faults.append("a key is shown")
    if done.code in {1, 2, 4, 5} and not (done.err.strip() or done.out.strip()):
        faults.append("it failed, and does not say why")
    if case.works and done.code not in ({0, 130} if case.stop else {0, 3}):
        faults.append("it does not work")
    if case.rows is not None and done.code in {0, 3} and not faults:
        found = found_again(case)
        if found != case.rows:
            faults.append(f"{found} of {case.rows} rows are found again")
    if case.store and done.code in {0, 3} and not faults:
        faults += _questions_lost(Path(case.store))
    return faults


def found_again(case: Case) -> int:
    """How many of the input's rows the output accounts for."""
    if case.scored:
        scored = set(pq.ParquetFile(f"{case.scored}.parquet").read(columns=["position"])["position"].to_pylist())
        return len(scored | {row["position"] for row in _lines(Path(f"{case.scored}.rejects.jsonl"))})
    if case.indexed:
        manifest = json.loads((Path(case.indexed) / "manifest.json").read_bytes())
        return int(manifest["documents"]) + len(_lines(Path(case.indexed) / "rejects.jsonl"))
    questions, rejects = (_column(Path(case.store), "load", name, "position") for name in ("questions", "rejects"))
    return len({*questions, *rejects}) + _documents(case)


def _documents(case: Case) -> int:
    """Rows of a JSON Lines source that are documents: they went to the paragraphs, and are nobody's question."""
    kind, _, file = next((a for n, a in zip(case.argv, case.argv[1:], strict=False) if n == "--source"), "").partition(
        "="
    )
    if kind != "jsonl" or Path(file).suffix in {".gz", ".bz2", ".zst"}:
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
    loaded = set(_column(store, "load", "questions", "question_id"))
    told = set(_column(store, "trajectories", "trajectories", "question_id"))
    for stage in stages:
        told |= set(_column(store, stage, "rejects", "question_id"))
    return [f"questions are lost: {sorted(loaded - told)[:5]}"] if loaded - told else []


def _column(store: Path, stage: str, table: str, column: str) -> list[Any]:
    outputs = json.loads((store / "manifest.json").read_bytes())["stages"][stage]["outputs"]
    values: list[Any] = pq.ParquetFile(store / outputs[table]["path"]).read(columns=[column])[column].to_pylist()
    return values


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

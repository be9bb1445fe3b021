"""What `verify` finds: questions with known faults, and good ones, judged by a reader of the synthetic world.

    python benchmarks/verify.py [--good 300] [--each 100] [--samples 3] [--error 0.1] [--guess 0.05] [--readings]

The reader answers over HTTP as a model would. With --error and --guess it misreads, and guesses what no passage says.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from stepsearch_data.pipeline.store import Store
from stepsearch_data.sql import query
from stepsearch_data.stages.proof.decision import READINGS
from tests.faults import Questions, make
from tests.llm_server import LlmServer
from tests.reader import Reader

STAGES = "load,mine,compose,index,verify,decide"


def main() -> None:
    """Print a line for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=300)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--error", type=float, default=0.0, help="share of readings that go wrong")
    parser.add_argument("--guess", type=float, default=0.0, help="share of answers that are guessed")
    parser.add_argument("--readings", action="store_true", help="let the reader alone decide, and no rule")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    questions = make(options.good, options.each, seed=options.seed)
    reader = Reader(questions.known, questions.answers, error=options.error, guess=options.guess)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, LlmServer(reader, keep=False) as server:
        alone = [f"--set={setting}={json.dumps(READINGS)}" for setting in ("verify.stop", "decide.gates")]
        settings = [f"--set=verify.samples={options.samples}", *(alone if options.readings else [])]
        verdicts, calls = build(Path(folder), questions, server.url, settings)
    hidden = unseen(questions, reader, verdicts)
    print(f"{len(verdicts):,} questions, {calls:,} calls, {time.perf_counter() - begun:.0f} s;", end=" ")
    print(f"{options.samples} samples, error {options.error:g}, guess {options.guess:g}")
    print(f"{'':20} questions  rejected  share  first failed check")
    for fault, of in questions.rows.items():
        first = Counter(verdicts[row["id"]] for row in of if row["id"] not in hidden)
        number, passed = first.total(), first.pop(None, 0)
        told = ", ".join(f"{check} {n}" for check, n in first.most_common())
        unseen_too = f"; {len(of) - number} more were not among the passages shown" if len(of) > number else ""
        print(f"{fault:20} {number:9,} {number - passed:9,}  {(number - passed) / number:.3f}  {told}{unseen_too}")


def build(folder: Path, questions: Questions, url: str, settings: list[str]) -> tuple[dict[str, Any], int]:
    """Check the questions; return the first gate that each failed, and the number of calls."""
    made = [json.dumps(row) for of in questions.rows.values() for row in of]
    (folder / "questions.jsonl").write_text("\n".join(made) + "\n")
    command = [sys.executable, "-m", "stepsearch_data", "build", "--store", str(folder / "store"), "--quiet"]
    command += ["--source", f"musique={folder / 'questions.jsonl'}", "--stage", STAGES]
    command += ["--set=verify.llm=mock", *settings]
    env = {**os.environ, "OPENAI_BASE_URL": url, "XDG_CACHE_HOME": str(folder / "cache")}
    subprocess.run(command, check=True, env=env)
    store = Store.open(folder / "store")
    with query(
        store, "SELECT question_id, if(passed, NULL, coalesce(first_failed, 'incomplete')) AS f FROM verdicts"
    ) as found:
        verdicts = {row["question_id"]: row["f"] for row in found.read_all().to_pylist()}
    with query(store, "SELECT count(*) AS n FROM llm_calls") as found:
        return verdicts, found.read_all().to_pylist()[0]["n"]


def unseen(questions: Questions, reader: Reader, verdicts: dict[str, Any]) -> set[str]:
    """Return the questions whose other branch was not among the passages that the reader was shown."""
    found = set()
    for row in questions.rows.get("ambiguous_bridge", []):
        branch = [f"{p['title']}\n{p['paragraph_text']}" for p in row["paragraphs"][-2:]]
        shown = reader.shown.get(row["question"], set())
        if verdicts[row["id"]] is None and not shown.issuperset(branch):
            found.add(row["id"])
    return found


if __name__ == "__main__":
    main()

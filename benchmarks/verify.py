"""What `verify` finds: questions with known faults, and good ones, judged by a reader of the synthetic world.

    python benchmarks/verify.py [--composed] [--good 300] [--each 100] [--samples 3] [--error 0.1] [--guess 0.05]

The reader answers over HTTP as a model would. With --error and --guess it misreads, and guesses what no passage says.
With --composed, a writer makes the questions of documents that `mine` has joined, and has faults of its own.
--readings lets the reader alone decide, and no rule.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from stepsearch_data.stages.proof.decision import READINGS
from tests.composer import writing
from tests.faults import make
from tests.llm_server import LlmServer
from tests.proof import ComposedQuestions, GivenQuestions, Writer, unseen
from tests.reader import Reader


def main() -> None:
    """Print a line for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--composed", action="store_true", help="questions that a writer makes of documents")
    parser.add_argument("--good", type=int, default=300)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--error", type=float, default=0.0, help="share of readings that go wrong")
    parser.add_argument("--guess", type=float, default=0.0, help="share of answers that are guessed")
    parser.add_argument("--readings", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    questions = make(options.good, options.each, composed=options.composed, seed=options.seed)
    reader = Reader(questions.known, questions.answers, error=options.error, guess=options.guess)
    begun = time.perf_counter()
    alone = {"verify.stop": json.dumps(READINGS), "decide.gates": json.dumps(READINGS)}
    settings = {"verify.samples": options.samples, **(alone if options.readings else {})}
    with tempfile.TemporaryDirectory() as folder, LlmServer(writing(reader, Writer(questions)), keep=False) as server:
        builds = (ComposedQuestions if options.composed else GivenQuestions)(Path(folder), server, questions)
        with builds.start(*(f"--set={name}={value}" for name, value in settings.items())) as process:
            told = process.communicate()[1]
        if process.returncode not in (0, 3):
            sys.exit(told)
        outcomes = builds.outcomes()
        (calls,) = builds.rows("SELECT count(*) AS n FROM llm_calls")
    hidden = unseen(questions, reader, outcomes)
    print(f"{len(outcomes):,} questions, {calls['n']:,} calls, {time.perf_counter() - begun:.0f} s;", end=" ")
    print(f"{options.samples} samples, error {options.error:g}, guess {options.guess:g}")
    print(f"{'':20} questions  rejected  share  what stopped them")
    for fault, of in questions.rows.items():
        stopped = Counter(outcomes[row["id"]] for row in of if row["id"] in outcomes.keys() - hidden)
        number, passed = stopped.total(), stopped.pop(None, 0)
        by = ", ".join(f"{check} {n}" for check, n in stopped.most_common())
        left = {"not shown to the reader": sum(row["id"] in hidden for row in of)}
        left["not drawn"] = sum(row["id"] not in outcomes for row in of)
        besides = "".join(f"; {n} more were {why}" for why, n in left.items() if n)
        print(f"{fault:20} {number:9,} {number - passed:9,}  {(number - passed) / number:.3f}  {by}{besides}")


if __name__ == "__main__":
    main()

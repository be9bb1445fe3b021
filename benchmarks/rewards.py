"""Step rewards against fitting scikit-learn's TfidfVectorizer for every document, as the reference code does.

Both compute the information gain of every round of the same rollouts, made-up ones or those of a file
with the reference code's fields: normalise, fit on the document and the gold paragraphs, cosine. Repetitions
alternate, so that a busy machine slows both:

    python benchmarks/rewards.py [--rollouts 100] [--repetitions 7] [--file ROLLOUTS.jsonl]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from stepsearch_data.core.text import normalise
from stepsearch_data.rewards import REFERENCE, information_gain, read

Task = tuple[list[list[str]], list[str]]
"""Documents of every round, and the gold paragraphs."""
Gains = list[list[float]]
_TOLERANCE = 1e-9


def made_up(rollouts: int, seed: int = 0) -> list[Task]:
    """Make rollouts of 4 rounds of 3 documents with 3 gold paragraphs of about 80 words, some of them found."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(3_000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]
    tasks = []
    for _ in range(rollouts):
        pool = [" ".join(chance.choices(words, weights, k=chance.randint(50, 110))) for _ in range(12)]
        tasks.append(([chance.sample(pool, 3) for _ in range(4)], pool[:3]))
    return tasks


def from_file(path: Path) -> list[Task]:
    """Read rollouts with the reference code's fields, cut into documents as the reference code does."""
    tasks = []
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        rounds = [
            [document.span.text for document in found.documents] for found in read(row["response"], REFERENCE).rounds
        ]
        tasks.append((rounds, [paragraph["paragraph_text"] for paragraph in row["support_docs"]]))
    return [(rounds, golds) for rounds, golds in tasks if rounds and golds]


def with_sklearn(tasks: list[Task]) -> Gains:
    """Compute gains with a vectoriser fitted for every document."""
    found = []
    for rounds, golds in tasks:
        plain = [normalise(gold) for gold in golds]
        memory = np.zeros(len(golds))
        gains = []
        for texts in rounds:
            best = np.zeros(len(golds))
            for text in map(normalise, texts):
                if text:
                    matrix = TfidfVectorizer().fit_transform([text, *plain])
                    best = np.maximum(best, cosine_similarity(matrix[0], matrix[1:]).ravel())
            gains.append(float(np.maximum(best - memory, 0).mean()))
            memory = np.maximum(memory, best)
        found.append(gains)
    return found


def with_ours(tasks: list[Task]) -> Gains:
    """Compute gains by the corrected sums of `rewards`."""
    return [information_gain(rounds, golds, refit=True).gains for rounds, golds in tasks]


def timed(compute: Callable[[list[Task]], Gains], tasks: list[Task]) -> tuple[float, Gains]:
    """Return processor seconds and the gains."""
    start = time.process_time()
    gains = compute(tasks)
    return time.process_time() - start, gains


def main() -> None:
    """Run the benchmark and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=100, help="made-up rollouts")
    parser.add_argument("--repetitions", type=int, default=7, help="of each way, alternating")
    parser.add_argument("--file", type=Path, help="rollouts to use instead")
    options = parser.parse_args()
    tasks = from_file(options.file) if options.file else made_up(options.rollouts)
    times: dict[str, list[float]] = {"scikit-learn": [], "rewards": []}
    difference = 0.0
    for _ in range(options.repetitions):
        slow, theirs = timed(with_sklearn, tasks)
        fast, ours = timed(with_ours, tasks)
        times["scikit-learn"].append(slow)
        times["rewards"].append(fast)
        pairs = ((x, y) for xs, ys in zip(theirs, ours, strict=True) for x, y in zip(xs, ys, strict=True))
        difference = max(difference, *(abs(x - y) for x, y in pairs))
    rounds = sum(len(found) for found, _ in tasks)
    documents = sum(len(texts) for found, _ in tasks for texts in found)
    print(f"{len(tasks):,} rollouts, {rounds:,} rounds, {documents:,} documents; processor seconds:")
    for name, seconds in times.items():
        print(f"  {name:<12}  median {statistics.median(seconds):.4f} (min {min(seconds):.4f}, max {max(seconds):.4f})")
    ratios = [slow / fast for slow, fast in zip(times["scikit-learn"], times["rewards"], strict=True)]
    print(f"ratio of each pair: median {statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})")
    print(f"largest difference: {difference:.1e}")
    if difference > _TOLERANCE:
        sys.exit("the gains differ")


if __name__ == "__main__":
    main()

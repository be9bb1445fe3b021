"""Where to draw the line between a piece of a gold paragraph and another text (retrieve.containment).

Cuts snippets from the paragraphs of real questions, as web search shows them, and compares each with the gold
paragraphs of its question: those cut from a gold paragraph should be told apart from those cut from the distractors,
which were chosen to be about the same things.

    python benchmarks/containment.py musique=musique_ans_v1.0_dev.jsonl hotpotqa=hotpot_dev_distractor_v1.json
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from stepsearch_data.core.progress import Reporter
from stepsearch_data.core.text import containment, tokens
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.pipeline.runner import Runner
from stepsearch_data.schemas.rows import Paragraph, Question, Row
from stepsearch_data.schemas.tables import PARAGRAPHS, QUESTIONS, Table
from stepsearch_data.stages import STAGES

SHARES = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
RANDOM = random.Random(0)


def window(text: str, size: int) -> str:
    """Cut `size` characters from anywhere in a text, without a word that is cut at the front."""
    start = RANDOM.randrange(max(1, len(text) - size))
    return text[start : start + size].partition(" ")[2] if start else text[:size]


SNIPPETS: dict[str, Callable[[str], str]] = {
    "its first 160 characters": lambda text: text[:160],
    "any 160 characters": lambda text: window(text, 160),
    "any 100 characters": lambda text: window(text, 100),
    "two times 80 characters": lambda text: f"{window(text, 80)} ... {window(text, 80)}",
}


def words(title: str, text: str) -> frozenset[str]:
    """Return the words of a text, which are compared."""
    return frozenset(tokens(f"{title} {text}"))


R = TypeVar("R", bound=Row)


def load(sources: list[str], folder: Path) -> tuple[list[Question], dict[str, Paragraph]]:
    """Load the questions and paragraphs of real files."""
    job = Runner(STAGES, load_config(STAGES, store=folder / "store", sources=sources), ["load"])
    job.run(Reporter(quiet=True))
    manifest = job.store.manifest()

    def rows(table: Table[R]) -> Iterable[R]:
        output = manifest.output(table.name)
        assert output
        return read_rows(job.store.path(output), table)

    return list(rows(QUESTIONS)), {row.passage_id: row for row in rows(PARAGRAPHS)}


def main() -> None:
    """Print the share of gold and of other paragraphs that passes, for each kind of snippet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="KIND=PATH")
    with tempfile.TemporaryDirectory() as folder:
        questions, paragraphs = load(parser.parse_args().sources, Path(folder))
    print(f"{len(questions):,} questions; share of gold / other paragraphs that pass")
    print(f"{'the document is':<28}" + "".join(f"{share:>15.2f}" for share in SHARES))
    for name, cut in {**SNIPPETS, "a page of 20 paragraphs": None}.items():
        gold_scores, other_scores = [], []
        for question in questions:
            gold = [paragraphs[s.passage_id] for s in question.supporting]
            others = [paragraphs[i] for i in question.paragraph_ids if paragraphs[i] not in gold]
            held = [words(p.title, p.text) for p in gold]
            if cut is None:
                drawn = [p for p in RANDOM.sample([*paragraphs.values()], 20) if p not in gold]
                page = frozenset().union(*(words(p.title, p.text) for p in drawn))
                gold_scores += [containment(page | paragraph, paragraph) for paragraph in held]
                other_scores += [max(containment(page, paragraph) for paragraph in held)]
                continue
            for scores, documents in ((gold_scores, gold), (other_scores, others)):
                for document in documents:
                    shown = words(f"{document.title} - Wikipedia", cut(document.text))
                    scores.append(max(containment(shown, paragraph) for paragraph in held))
        passed = [
            "/".join(f"{sum(s >= share for s in scores) / len(scores):.4f}" for scores in (gold_scores, other_scores))
            for share in SHARES
        ]
        print(f"{name:<28}" + "".join(f"{cell:>15}" for cell in passed))


if __name__ == "__main__":
    main()

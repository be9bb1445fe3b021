"""Minimal rows in the formats of the sources, as their files write them; every field can be overridden."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

OPERA = ("The Barber of Seville", "The Barber of Seville is an opera composed by Gioachino Rossini.")
COMPOSER = ("Gioachino Rossini", "Gioachino Rossini was born in Pesaro, on the Adriatic coast.")
DISTRACTOR = ("Bologna", "Bologna is a city in Italy.")
QUESTION = "Where was the composer of The Barber of Seville born?"
STEPS = ("The Barber of Seville >> composer", "Where was #1 born?")
ANSWERS = ("Gioachino Rossini", "Pesaro")


def musique(identifier: str, **fields: Any) -> Row:
    row: Row = {
        "id": identifier,
        "paragraphs": [
            {"idx": idx, "title": title, "paragraph_text": text, "is_supporting": idx < 2}
            for idx, (title, text) in enumerate((OPERA, COMPOSER, DISTRACTOR))
        ],
        "question": QUESTION,
        "question_decomposition": [
            {"id": number, "question": text, "answer": answer, "paragraph_support_idx": number}
            for number, (text, answer) in enumerate(zip(STEPS, ANSWERS, strict=True))
        ],
        "answer": "Pesaro",
        "answer_aliases": [],
        "answerable": True,
    }
    return row | fields


def with_step(identifier: str, at: int, **fields: Any) -> Row:
    """A MuSiQue row, fields of one step of its decomposition replaced."""
    row = musique(identifier)
    row["question_decomposition"][at] |= fields
    return row


def with_paragraph(identifier: str, at: int, **fields: Any) -> Row:
    """A MuSiQue row, fields of one of its paragraphs replaced."""
    row = musique(identifier)
    row["paragraphs"][at] |= fields
    return row


def hotpotqa(identifier: str, **fields: Any) -> Row:
    row: Row = {
        "_id": identifier,
        "question": QUESTION,
        "answer": "Pesaro",
        "supporting_facts": [[OPERA[0], 0], [COMPOSER[0], 0]],
        "context": [[title, [text]] for title, text in (DISTRACTOR, OPERA, COMPOSER)],
        "type": "bridge",
        "level": "easy",
    }
    return row | fields


def two_wiki(identifier: str, **fields: Any) -> Row:
    evidences = [[OPERA[0], "composer", COMPOSER[0]], [COMPOSER[0], "place of birth", "Pesaro"]]
    return hotpotqa(identifier, type="compositional", evidences=evidences) | fields


def jsonl(identifier: str, **fields: Any) -> Row:
    row: Row = {
        "id": identifier,
        "question": QUESTION,
        "answer": "Pesaro",
        "paragraphs": [
            {"title": title, "text": text, "supporting": title != DISTRACTOR[0]}
            for title, text in (OPERA, COMPOSER, DISTRACTOR)
        ],
    }
    return row | fields


def stepsearch(identifier: str | int, **fields: Any) -> Row:
    row: Row = {
        "id": identifier,
        "question": QUESTION,
        "final_answer": "Pesaro",
        "answer_aliases": [],
        "sub_searchs": [["Barber of Seville composer", "who wrote The Barber of Seville"], ["Rossini birthplace"]],
        "sub_support_docs": [
            {"idx": idx, "title": title, "paragraph_text": text} for idx, (title, text) in enumerate((OPERA, COMPOSER))
        ],
    }
    return row | fields


def stepsearch_training(index: int, **truth: Any) -> Row:
    """A row of the training file that the release's `musi_search.py` makes of a row."""
    row = stepsearch(index)
    return {
        "data_source": "musi",
        "prompt": [{"role": "user", "content": f"## Background\nSearch and answer.\n Question: {QUESTION}\n"}],
        "ability": "fact-reasoning",
        "reward_model": {
            "style": "rule",
            "ground_truth": {"target": ["Pesaro"], "search_keys": row["sub_searchs"]} | truth,
        },
        "extra_info": {"split": "train", "index": index, "support_docs": row["sub_support_docs"]},
    }


def without(row: Row, field: str) -> Row:
    return {name: value for name, value in row.items() if name != field}


def write_lines(path: Path, rows: Iterable[Row | bytes]) -> Path:
    """A JSON Lines file; bytes are written as they are."""
    path.write_bytes(b"".join(line(row) + b"\n" for row in rows))
    return path


def line(row: Row | bytes) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()

"""load of documents: a bad row lands in `rejects` with its reason, passages say where they come from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import run_cli

BETWEEN = 9  # good rows after each bad one
BAD: list[tuple[Any, str]] = [
    (b'{"title": "Milan"', "Invalid JSON"),
    (b"[]", "no JSON object"),
    ("P\u00e9saro".encode("latin-1"), "Invalid JSON"),
    ({"title": "Milan", "text": "A city.", "question": "Where?"}, "it is a question, not a document"),
    ({"title": "Milan"}, "neither `contents` nor `text`"),
    ({"title": 5, "text": "A city."}, "its title is not a text"),
    ({"id": [], "title": "Milan", "text": "A city."}, "neither a text nor a whole number"),
    ({"title": "Milan", "text": " \n"}, "it has no text"),
    ({"title": "Milan", "text": "a\0"}, "paragraph 0 holds a NUL byte"),
    ({"id": "\0", "title": "Milan", "text": "A city."}, "id holds a NUL byte"),
    ({"title": "\ud800", "text": "A city."}, "Invalid JSON|surrogate"),
]
SENTENCE = "This is a sentence of a long document. "
GOOD: list[dict[str, Any]] = [
    {"_id": 7, "title": "Lucca", "text": "Lucca is a city in Tuscany."},
    {"id": "long", "title": "Long", "text": SENTENCE * 100},
    {"id": "other", "title": "Long", "text": "Another text under the same title."},
    {"id": "twice", "title": "Long", "text": "Another text under the same title."},
    {"title": "Ostwick", "text": "Ostwick is a town."},
]
ROWS = [row for bad, _ in BAD for row in (bad, *({"title": f"T{n}", "text": f"{bad} {n}"} for n in range(BETWEEN)))]
ROWS += GOOD


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in ROWS]
    (folder / "own.jsonl").write_bytes(b"\n".join(lines))
    question = {
        "id": "q",
        "question": "Where is it?",
        "answer": "Tuscany",
        "paragraphs": [GOOD[0] | {"supporting": True}],
    }
    (folder / "questions.jsonl").write_text(json.dumps(question))
    sources = [f"--source=jsonl={folder}/questions.jsonl", f"--source=corpus={folder}/own.jsonl"]
    built = run_cli("build", "--store", folder / "store", "--to", "mine", "--quiet", *sources)
    assert built.returncode == 3, built.stderr
    return folder / "store"


def table(store: Path, name: str) -> list[dict[str, Any]]:
    (file,) = store.glob(f"stages/load-*/{name}.parquet")
    listed: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return listed


def test_a_bad_row_is_rejected_with_position_and_reason(store: Path) -> None:
    rejects = table(store, "rejects")
    assert [row["position"] for row in rejects] == [1 + number * (BETWEEN + 1) for number in range(len(BAD))]
    for row, (_, reason) in zip(rejects, BAD, strict=True):
        assert re.search(reason, row["reason"]), row
        assert (row["source"], bool(row["raw"])) == ("corpus", True)


def test_a_passage_says_where_it_comes_from(store: Path) -> None:
    title = {row["passage_id"]: row["title"] for row in table(store, "paragraphs")}
    origins = table(store, "origins")
    assert len(origins) == len(ROWS) - len(BAD)  # one row is two passages, and one passage comes twice
    last = len(ROWS)
    assert [(title[row["passage_id"]], *list(row.values())[1:]) for row in origins[-5:]] == [
        ("Lucca", "corpus", last - 4, "7", 1),  # comes with a question, too
        ("Long", "corpus", last - 3, "long", 1),
        ("Long", "corpus", last - 3, "long", 2),
        ("Long", "corpus", last - 2, "other", 1),
        ("Ostwick", "corpus", last, "", 1),
    ]


def test_the_parts_of_a_document_are_its_text(store: Path) -> None:
    text = {row["passage_id"]: row["text"] for row in table(store, "paragraphs")}
    parts = [text[row["passage_id"]] for row in table(store, "origins") if row["document"] == "long"]
    assert " ".join(parts) == (SENTENCE * 100).strip()
    assert all(len(part) <= 2_000 for part in parts)


def test_documents_are_no_questions(store: Path) -> None:
    assert [row["question_id"] for row in table(store, "loaded")] == ["q"]


def test_a_question_with_an_id_as_composed_ones_have_is_rejected_beside_documents(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text(json.dumps(GOOD[0]))
    paragraphs = [GOOD[0] | {"supporting": True}]
    asked = {"id": "corpus__0123456789abcdef", "question": "Where?", "answer": "Tuscany", "paragraphs": paragraphs}
    (tmp_path / "questions.jsonl").write_text(json.dumps(asked))
    alone = ("build", "--to", "load", "--quiet", f"--source=jsonl={tmp_path}/questions.jsonl", "--store")
    assert run_cli(*alone, tmp_path / "alone").returncode == 0
    beside = run_cli(*alone, tmp_path / "store", f"--source=corpus={tmp_path}/own.jsonl")
    assert beside.returncode == 1
    assert (
        "the id corpus__0123456789abcdef is like those that compose gives to questions of the corpus" in beside.stderr
    )

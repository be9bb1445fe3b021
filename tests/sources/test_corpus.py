"""corpus: documents in every form become passages with a title, cut by rules; nothing is lost on the way."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.core.errors import RowRejected, SourceError
from stepsearch_data.sources.corpus import DATASET, cut
from stepsearch_data.sources.record import Record
from stepsearch_data.sources.source import Source, check_kind, parse_source

ROW = {"id": "7", "title": "The Barber", "text": "An opera by Rossini."}
CONTENTS = {"id": "7", "contents": '"The Barber"\nAn opera by Rossini.'}


def read(path: Path) -> list[tuple[str, str]]:
    """Titles and texts of a source's documents."""
    assert DATASET.parse
    parsed = [DATASET.parse(record) for record in parse_source(f"corpus={path}").records()]
    assert all(question is None for question, _ in parsed)
    return [(paragraph.title, paragraph.text) for _, paragraphs in parsed for paragraph in paragraphs]


def refusal(row: Any) -> str:
    assert DATASET.parse
    with pytest.raises(RowRejected) as refused:
        DATASET.parse(Record(1, row if isinstance(row, bytes) else json.dumps(row).encode()))
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("own.jsonl", json.dumps(ROW).encode()),
        ("own.json", json.dumps([ROW]).encode()),
        ("wiki-18.jsonl.gz", gzip.compress(json.dumps(CONTENTS).encode())),
        ("psgs_w100.tsv", b"id\ttext\ttitle\n7\tAn opera by Rossini.\tThe Barber\n"),
        ("psgs_w100.tsv.gz", gzip.compress(b'7\t"An opera by Rossini."\tThe Barber\n')),
        ("own.csv", b"id,title,text\n7,The Barber,An opera by Rossini.\n"),
        ("The_Barber.txt", b"An opera by Rossini."),
        ("barber.md", b"# The Barber\n\nAn opera by Rossini."),
    ],
)
def test_a_document_is_read_from_every_form(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == [("The Barber", "An opera by Rossini.")]


def test_parquet_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "own.parquet")
    assert read(tmp_path / "own.parquet") == [("The Barber", "An opera by Rossini.")]


def test_a_folder_s_documents_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/Two.md", "a/Three.txt", "One.MARKDOWN", "a/.git/hidden.md", "picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    source = Source("corpus", str(tmp_path))
    assert [record.fields["id"] for record in source.records()] == ["One.MARKDOWN", "a/Three.txt", "b/Two.md"]
    before = source.digest()
    (tmp_path / "picture.png").write_text("other")
    assert source.digest() == before
    (tmp_path / "b" / "Two.md").write_text("other")
    assert source.digest() != before


def test_a_file_that_is_not_utf_8_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Pésaro".encode("latin-1"))
    (tmp_path / "b.txt").write_text("Pésaro", encoding="utf-8")
    bad, good = Source("corpus", str(tmp_path)).records()
    assert (bad.position, bad.broken, bad.data) == (1, "a.txt is not UTF-8", "Pésaro".encode("latin-1"))
    assert (good.position, good.fields["text"]) == (2, "Pésaro")


def test_a_folder_without_documents_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "picture.png").touch()
    with pytest.raises(SourceError, match="holds no document"):
        list(Source("corpus", str(tmp_path)).records())


@pytest.mark.parametrize(
    ("text", "title", "plain"),
    [
        ("---\ntitle: 'Ada Ferro'\ntags: [x]\n---\nBorn in Ostwick.", "Ada Ferro", "Born in Ostwick."),
        ("---\ntitle: Ada\n---\n# Life\n\nBorn.", "Ada", "Life\nBorn."),
        ("Born in Ostwick.", "ada ferro", "Born in Ostwick."),
        ("# Ada ##\n## Life ##\n\nBorn.\n\n## Death\n\nDied.", "Ada", "Life\nBorn.\n\nDeath\nDied."),
        ("# Ada\nBorn in [Ostwick](places/ostwick.md).", "Ada", "Born in Ostwick."),
        ("# Ada\nBorn in [[Ostwick]], near [[Lenn (river)|the Lenn]].", "Ada", "Born in Ostwick, near the Lenn."),
        ("# Ada\n![A portrait](ada.png) She [wrote] it.", "Ada", "A portrait She [wrote] it."),
        ("#hashtag\nNo heading.", "ada ferro", "#hashtag\nNo heading."),
    ],
)
def test_markdown_gives_a_title_and_plain_text(tmp_path: Path, text: str, title: str, plain: str) -> None:
    (tmp_path / "ada_ferro.md").write_text(text)
    assert read(tmp_path / "ada_ferro.md") == [(title, plain)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW | {"question": "Who?"}, "it is a question, not a document"),
        ({"question": "Who?", "golden_answers": ["Ada"]}, "it is a question, not a document"),
        ({"title": "Ada"}, "neither `contents` nor `text`"),
        ({"title": 5, "text": "t"}, "its title is not a text"),
        (ROW | {"id": 1.5}, "its id is neither a text nor a whole number"),
        (b"[]", "no JSON object"),
        (b'{"title": "Ada"', "Invalid JSON"),
        ({"title": "Lodi", "text": ""}, "it has no text"),
        ({"contents": '"Lodi"\n \n'}, "it has no text"),
    ],
)
def test_other_rows_are_refused_with_the_reason(row: Any, reason: str) -> None:
    assert reason in refusal(row)


def test_questions_of_a_known_format_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"id": "q", "question": "Who?", "answer": "Ada", "paragraphs": []}))
    source = Source("corpus", str(path))
    with pytest.raises(SourceError, match="in the format of jsonl"):
        check_kind(source, source.records())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("  short  ", ["  short  "]),
        ("One two.\n\nThree four five six.", ["One two.", "Three four five six."]),
        ("One two three. Four five six seven.", ["One two three.", "Four five six seven."]),
        (
            "東京は日本の首都である。大阪は西にある都市だ。京都は古い。",
            ["東京は日本の首都である。", "大阪は西にある都市だ。京都は古い。"],
        ),
        ("one two three four five six", ["one two three", "four five six"]),
        ("x" * 45, ["x" * 15] * 3),
    ],
)
def test_a_long_text_is_cut_at_the_best_place(text: str, parts: list[str]) -> None:
    assert list(cut(text, 20)) == parts


@given(st.text("ab .\n", max_size=400), st.integers(1, 60))
def test_no_passage_is_too_long_and_no_word_is_lost(text: str, most: int) -> None:
    parts = list(cut(text, most))
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(len(part) <= most and part for part in parts) or parts == [] or not text.strip()


def test_ten_megabytes_without_a_space_are_cut() -> None:
    parts = list(cut("x" * 10_000_000, 2_000))
    assert sum(map(len, parts)) == 10_000_000
    assert max(map(len, parts)) <= 2_000

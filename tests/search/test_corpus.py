from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search.corpus import FileCorpus
from stepsearch_data.search.documents import Document

ROWS = [
    {"id": "7", "contents": '"The Barber of Seville"\nAn opera by "Rossini".\nIn two acts.'},
    {"id": "8", "contents": '""\nNo title.'},
]
READ = [
    Document("7", "The Barber of Seville", 'An opera by "Rossini".\nIn two acts.'),
    Document("8", "", "No title."),
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}


def read(path: Path) -> tuple[list[Document], list[tuple[int, str]]]:
    """Documents and rejects."""
    rejects: list[tuple[int, str]] = []
    return list(FileCorpus(path).documents(lambda position, reason: rejects.append((position, reason)))), rejects


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", list(COMPRESS))
def test_json_lines_are_read_plain_or_compressed(tmp_path: Path, suffix: str) -> None:
    assert read(written(tmp_path / f"wiki-18.jsonl{suffix}", COMPRESS[suffix](LINES))) == (READ, [])


@pytest.mark.parametrize("suffix", list(COMPRESS))
def test_dpr_passages_are_read_plain_or_compressed(tmp_path: Path, suffix: str) -> None:
    lines = 'id\ttext\ttitle\n1\t"An opera by ""Rossini""."\tThe Barber\n2\tPlain.\t"A ""B"""\n'
    found = read(written(tmp_path / f"psgs_w100.tsv{suffix}", COMPRESS[suffix](lines.encode())))
    assert found == ([Document("1", "The Barber", 'An opera by "Rossini".'), Document("2", 'A "B"', "Plain.")], [])


def test_parquet_is_read_in_either_dialect(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "contents.parquet")
    assert read(tmp_path / "contents.parquet") == (READ, [])
    parts = [{"id": 1, "title": "A", "text": "a"}, {"id": 2, "title": None, "text": "b"}]
    pq.write_table(pa.Table.from_pylist(parts), tmp_path / "parts.parquet")
    assert read(tmp_path / "parts.parquet") == ([Document("1", "A", "a"), Document("2", "", "b")], [])


@pytest.mark.parametrize(
    ("row", "document"),
    [
        ({"id": "a", "title": "T", "text": "x"}, Document("a", "T", "x")),
        ({"_id": "a", "title": "T", "text": "x"}, Document("a", "T", "x")),
        ({"id": 5, "title": "T", "content": "x"}, Document("5", "T", "x")),
        ({"contents": "T\nx"}, Document("0", "T", "x")),
        ({"contents": "one line"}, Document("0", "", "one line")),
        ({"text": "", "title": "T"}, Document("0", "T", "")),
    ],
)
def test_dialects(tmp_path: Path, row: dict[str, Any], document: Document) -> None:
    assert read(written(tmp_path / "c.jsonl", json.dumps(row).encode())) == ([document], [])


BAD = [
    ("{", "Invalid JSON"),
    ("[1]", "not a JSON object"),
    ("{}", "neither `contents` nor `text`"),
    ('{"contents": 3}', "neither `contents` nor `text`"),
    ('{"text": ["a"]}', "neither `contents` nor `text`"),
    ('{"title": 3, "text": "a"}', "title is not a text"),
    ('{"id": {}, "text": "a"}', "id is neither"),
    ('{"text": "\\ud800"}', "Invalid JSON"),
]


def test_a_row_that_is_no_passage_is_put_aside_with_its_position(tmp_path: Path) -> None:
    lines = ['{"id": "good", "text": "a"}', "", *(row for row, _ in BAD)]
    documents, rejects = read(written(tmp_path / "c.jsonl", "\n".join(lines).encode()))
    assert documents == [Document("good", "", "a")]
    assert [position for position, _ in rejects] == list(range(3, 3 + len(BAD)))
    for (_, reason), (_, expected) in zip(rejects, BAD, strict=True):
        assert expected in reason


def test_lines_of_a_tsv_with_other_columns_are_put_aside(tmp_path: Path) -> None:
    documents, rejects = read(written(tmp_path / "c.tsv", b"id\ttext\ttitle\n1\ta\tA\n2\tb\n3\tc\tC\n"))
    assert [document.id for document in documents] == ["1", "3"]
    assert rejects == [(2, "2 columns instead of id, text, title")]
    assert read(written(tmp_path / "headless.tsv", b"1\n2\tb\tB\n"))[1] == [(1, "1 columns instead of id, text, title")]


def test_a_passage_of_any_length_is_read_from_a_tsv(tmp_path: Path) -> None:
    long = "word " * 100_000
    (document,), rejects = read(written(tmp_path / "c.tsv", f"1\t{long}\tA\n".encode()))
    assert (len(document.text), rejects) == (len(long), [])


def test_a_compressed_file_that_breaks_off_keeps_what_precedes(tmp_path: Path) -> None:
    many = b"".join(json.dumps({"id": str(n), "text": f"text {n}"}).encode() + b"\n" for n in range(5000))
    documents, rejects = read(written(tmp_path / "c.jsonl.gz", gzip.compress(many)[:-3000]))
    assert 0 < len(documents) < 5000
    assert "cannot be read any further" in rejects[-1][1]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("c.txt", b"text"),
        ("c.jsonl", b""),
        ("c.jsonl", "{}".encode("utf-16")),
        ("c.jsonl.gz", b"no gzip"),
        ("c.jsonl.zst", b"no zstd"),
        ("c.parquet", b"no parquet"),
        ("c.tsv", b"1\t\xff\tA\n"),
        ("c.tsv.gz", gzip.compress(b"1\ta\tA\n" * 9999, mtime=0)[:-20]),
    ],
)
def test_a_file_that_is_no_corpus_is_an_error(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(SearchError) as error:
        read(written(tmp_path / name, data))
    assert ".jsonl" in error.value.hint


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="there is no corpus"):
        FileCorpus(tmp_path / "c.jsonl")

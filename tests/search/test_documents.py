from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search import documents
from stepsearch_data.search.documents import FILE, Document, Documents, write_documents

SEVEN = [Document(f"id{n}", f"Title {n}", f"text {n} – ü 日本") for n in range(7)]


@pytest.fixture(params=[3, 7, 10_000], ids=lambda rows: f"batches of {rows}")
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(documents, "_ROWS", request.param)
    assert write_documents(iter(SEVEN), tmp_path) == 7
    return tmp_path


def test_they_are_what_was_written_in_its_order(folder: Path) -> None:
    found = Documents(folder)
    assert list(found) == SEVEN
    assert [found[number] for number in range(len(found))] == SEVEN
    assert found[2:5] == SEVEN[2:5]
    assert found.ids().to_pylist() == [document.id for document in SEVEN]


def test_a_range_is_read_alone_also_in_another_process(folder: Path) -> None:
    found = pickle.loads(pickle.dumps(Documents(folder)))
    for first in range(8):
        for end in range(first, 8):
            assert list(found.between(first, end)) == SEVEN[first:end]
    assert list(found.texts(0, 2, 4)) == [document.text for document in SEVEN[2:4]]


def test_numbers_beyond_are_errors(folder: Path) -> None:
    for number in (-1, 7):
        with pytest.raises(IndexError):
            Documents(folder)[number]


def test_texts_say_the_title_as_often_as_it_weighs(folder: Path) -> None:
    assert next(Documents(folder).texts(0)) == SEVEN[0].text
    assert list(Documents(folder).texts(2))[6] == f"{SEVEN[6].title}\n{SEVEN[6].title}\n{SEVEN[6].text}"


def test_the_same_documents_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    write_documents(SEVEN, tmp_path / "again")
    assert (folder / FILE).read_bytes() == (tmp_path / "again" / FILE).read_bytes()


def test_no_documents_are_documents_too(tmp_path: Path) -> None:
    assert write_documents([], tmp_path) == 0
    assert list(Documents(tmp_path)) == []


def test_a_file_that_is_missing_or_cut_is_an_error(folder: Path, tmp_path: Path) -> None:
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[: len(data) // 2])
    for broken in (folder, tmp_path / "nowhere"):
        with pytest.raises(SearchError, match="holds no documents"):
            Documents(broken)


def test_damage_is_said_and_never_followed(folder: Path) -> None:
    """Arrow reads wherever an offset points to: far out of the file, that is the end of the process."""
    data = (folder / FILE).read_bytes()
    said = 0
    for place in range(0, len(data) - 4, 4):
        (folder / FILE).write_bytes(data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :])
        try:
            found = Documents(folder)
            assert all(isinstance(text, str) for document in found for text in document)
            assert all(isinstance(text, str) for number in range(len(found)) for text in found[number])
            assert all(isinstance(identity, str) for identity in found.ids().to_pylist())
        except SearchError:
            said += 1
    assert said > len(data) / 4 / 10


def test_a_file_of_other_columns_is_said(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "title": ["b"], "words": ["c"]})
    with pa.OSFile(str(tmp_path / FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    with pytest.raises(SearchError, match="its columns are not id, title, text"):
        Documents(tmp_path)

"""An index folder: built once, whole or not there, and never taken for another."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import SearchError
from stepsearch_data.core.progress import Meter
from stepsearch_data.search import LocalEngine, Service, index
from stepsearch_data.search.corpus import FileCorpus
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.index import build_index, fingerprint_of, open_engine, read_metadata
from stepsearch_data.search.kinds import choose
from tests.serving import write_corpus
from tests.tree import tree

PASSAGES = [{"id": f"p{n}", "title": f"Title {n}", "text": f"passage number{n} of many"} for n in range(50)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl", PASSAGES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "index"


class Watch:
    """What a build does, in the order it does it."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.said: list[str] = []

    @contextmanager
    def phase(self, name: str, steps: int | None) -> Iterator[Meter]:
        self.phases.append((name, steps))
        yield Meter(None, name)


def build(root: Path, corpus: Path, *engines: str, **sections: dict[str, Any]) -> Watch:
    watch = Watch()
    build_index(root, FileCorpus(corpus), choose(engines or ["bm25"], sections), watch.phase, watch.said.append)
    return watch


def opened(root: Path, name: str = "bm25", **section: Any) -> LocalEngine:
    (engine,) = choose([name], {name: section})
    found = open_engine(engine, root, Service())
    assert isinstance(found, LocalEngine)
    return found


def best(root: Path, query: str) -> str:
    engine = opened(root)
    return str(engine.documents[engine.index.find([query], 1)[0][0][0]].id)


def test_it_holds_the_documents_once_and_each_engine_beside_them(corpus: Path, root: Path) -> None:
    watch = build(root, corpus, "bm25", "chargram")
    assert watch.phases == [("documents", None), ("bm25", 50), ("chargram", 50)]
    metadata = read_metadata(root)
    assert metadata
    assert (metadata.corpus, metadata.documents, metadata.rejects) == ("corpus.jsonl", 50, 0)
    assert list(metadata.engines) == ["bm25", "chargram"]
    assert {entry.name for entry in root.iterdir()} == {"manifest.json", "documents.arrow", "bm25", "chargram", ".lock"}
    assert best(root, "number17") == "p17"


def test_what_is_current_is_left_alone(corpus: Path, root: Path) -> None:
    build(root, corpus)
    before = tree(root)
    assert build(root, corpus).phases == []
    os.utime(corpus, (1, 1))
    assert build(root, corpus).phases == []  # the same bytes
    metadata = read_metadata(root)
    assert metadata
    assert metadata.stamp == FileCorpus(corpus).stamp  # and they need not be looked at again
    assert {name: digest for name, digest in tree(root).items() if name != "manifest.json"} == {
        name: digest for name, digest in before.items() if name != "manifest.json"
    }


def test_another_engine_or_setting_builds_that_part_alone(corpus: Path, root: Path) -> None:
    build(root, corpus)
    assert build(root, corpus, "bm25", "chargram").phases == [("chargram", 50)]
    assert build(root, corpus, "bm25", "chargram", bm25={"k1": 0.5}).phases == [("bm25", 50)]
    assert build(root, corpus, "chargram").phases == []


def test_a_corpus_that_changed_is_indexed_anew(corpus: Path, root: Path) -> None:
    build(root, corpus, "bm25", "chargram")
    write_corpus(corpus, [{"id": "new", "title": "", "text": "something else"}, *PASSAGES])
    watch = build(root, corpus)
    assert watch.said == ["corpus.jsonl has changed: the index is built again"]
    assert watch.phases == [("documents", None), ("bm25", 51)]
    assert best(root, "something else") == "new"
    assert not (root / "chargram").exists()


def test_the_index_of_another_corpus_is_not_overwritten(corpus: Path, root: Path, tmp_path: Path) -> None:
    build(root, corpus)
    before = tree(root)
    other = write_corpus(tmp_path / "other.jsonl", PASSAGES[:5])
    with pytest.raises(SearchError, match=r"index of another corpus, corpus.jsonl"):
        build(root, other)
    assert tree(root) == before


def test_a_copy_of_the_corpus_has_the_same_index(corpus: Path, root: Path, tmp_path: Path) -> None:
    build(root, corpus)
    assert build(root, Path(shutil.copy(corpus, tmp_path / "copy.jsonl"))).phases == []


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("holiday.jpg", b"", "neither empty nor an index"),
        ("manifest.json", b"{}", "not the metadata of an index"),
        ("manifest.json", b"\xff", "not the metadata of an index"),
        ("manifest.json", json.dumps({"format": 1, "stages": {}}).encode(), "not the metadata of an index"),
    ],
)
def test_a_folder_of_somebody_else_is_not_touched(
    corpus: Path, root: Path, name: str, data: bytes, message: str
) -> None:
    root.mkdir()
    (root / name).write_bytes(data)
    with pytest.raises(SearchError, match=message):
        build(root, corpus)
    assert (root / name).read_bytes() == data
    with pytest.raises(SearchError, match=message):
        opened(root)


def test_an_index_of_another_format_is_refused(corpus: Path, root: Path) -> None:
    build(root, corpus)
    metadata = root / "manifest.json"
    metadata.write_text(
        metadata.read_text().replace('"format": 1', '"format": 99').replace('"format":1', '"format":99')
    )
    with pytest.raises(SearchError, match="format 99"):
        opened(root)


def test_what_was_not_built_so_cannot_be_opened(corpus: Path, root: Path) -> None:
    with pytest.raises(SearchError, match="holds no bm25 index"):
        opened(root)
    build(root, corpus)
    with pytest.raises(SearchError, match=r"holds no chargram index \(it has bm25\)") as error:
        opened(root, "chargram")
    assert error.value.hint == f"build it: stepsearch-data index --corpus corpus.jsonl --index {root} --engine chargram"
    with pytest.raises(SearchError, match=r"was built with k1=1.2"):
        opened(root, k1=0.7)


def test_an_index_of_another_corpus_counts_by_what_it_holds(corpus: Path, root: Path, tmp_path: Path) -> None:
    build(root, corpus)
    (engine,) = choose(["mine"], {"mine": {"kind": "bm25", "index": str(root)}})
    before = fingerprint_of(engine)
    answer = opened(root).documents[3]
    (found,) = asyncio.run(open_engine(engine, None, Service()).search(["number3"], 1))
    assert found.found[0][:4:2] == (None, answer.title)
    write_corpus(corpus, PASSAGES[:20])
    build(root, corpus)
    assert fingerprint_of(engine) != before
    with pytest.raises(SearchError, match="holds no index"):
        fingerprint_of(choose(["bm25"], {"bm25": {"index": str(tmp_path / "nowhere")}})[0])


def test_rows_that_are_no_passages_are_kept_aside(corpus: Path, root: Path) -> None:
    corpus.write_text(corpus.read_text() + "{}\nno JSON\n")
    build(root, corpus)
    metadata = read_metadata(root)
    assert metadata
    assert (metadata.documents, metadata.rejects) == (50, 2)
    rejects = [json.loads(line) for line in (root / "rejects.jsonl").read_text().splitlines()]
    assert [reject["position"] for reject in rejects] == [51, 52]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n{"id": "a", "text": "z"}\n',
            "'a' occurs 2 times, at passages 1 and 3",
        ),
        ('{"text": "x"}\n{}\n[]\n', "2 of 3 rows of corpus.jsonl are not passages"),
        ("\n\n{}\n", "1 of 1 rows"),
        ('{"text": "?!"}\n', "no word"),
    ],
)
def test_a_corpus_that_is_not_fit_is_refused_and_mended(corpus: Path, root: Path, text: str, message: str) -> None:
    corpus.write_text(text)
    with pytest.raises(SearchError, match=message):
        build(root, corpus)
    write_corpus(corpus, PASSAGES)
    build(root, corpus)
    assert best(root, "number17") == "p17"


def test_an_empty_corpus_is_an_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(SearchError, match=r"empty.tsv holds no passage"):
        build(root, tmp_path / "empty.tsv")


def test_two_builds_at_once_are_refused(corpus: Path, root: Path) -> None:
    root.mkdir()
    with open(root / ".lock", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(SearchError, match="another process is building"):
            build(root, corpus)
    build(root, corpus)


def test_a_folder_that_cannot_be_written_is_an_error(corpus: Path, root: Path) -> None:
    root.write_text("a file")
    with pytest.raises(SearchError, match="cannot"):
        build(root, corpus)


class Stop(BaseException):
    """The process dies here."""


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Have a function die at its so-manieth call."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, 1000))

    def dying(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise Stop
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, dying)


MOMENTS = [
    (index, "_refuse_duplicates", 1),
    (index, "_commit", 1),  # the documents have their place, but nothing says so
    (index, "_build_engine", 1),
    (index, "_build_engine", 2),
    (index, "_commit", 2),  # a part has its place, but nothing says so
    (index, "_commit", 3),
]


@pytest.mark.parametrize(("owner", "name", "call"), MOMENTS, ids=[f"{name} {call}" for _, name, call in MOMENTS])
@pytest.mark.parametrize("renewed", [False, True], ids=["new", "renewed"])
def test_a_build_that_dies_goes_on_to_the_same_bytes(
    corpus: Path,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    call: int,
    renewed: bool,
) -> None:
    build(tmp_path / "clean", corpus, "bm25", "chargram")
    if renewed:
        whole = corpus.read_text()
        write_corpus(corpus, PASSAGES[:20])
        build(root, corpus, "bm25")
        corpus.write_text(whole)
        os.utime(corpus, ns=(0, read_stamp(tmp_path / "clean")))
    with monkeypatch.context() as patched:
        interrupt(patched, owner, name, call)
        with pytest.raises(Stop):
            build(root, corpus, "bm25", "chargram")
    build(root, corpus, "bm25", "chargram")
    assert tree(root) == tree(tmp_path / "clean")


def read_stamp(root: Path) -> int:
    """The corpus's time of change, as its index knows it."""
    metadata = read_metadata(root)
    assert metadata
    return int(metadata.stamp[1])


def test_clearing_that_dies_is_finished(corpus: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(root, corpus, "bm25", "chargram")
    write_corpus(corpus, PASSAGES[:20])
    with monkeypatch.context() as patched:
        interrupt(patched, shutil, "rmtree", 1)
        with pytest.raises(Stop):
            build(root, corpus)
    with pytest.raises(SearchError, match="holds no bm25 index"):
        opened(root)
    build(root, corpus)
    assert best(root, "number17") == "p17"
    assert len(Documents(root)) == 20


@pytest.mark.long
def test_kill_9_in_the_middle_of_a_build_costs_that_part(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", [{**p, "id": f"{p['id']}-{n}"} for n in range(80) for p in PASSAGES])
    command = [sys.executable, "-m", "stepsearch_data", "index", "--quiet", "--corpus", str(corpus), "--index"]
    killed = tmp_path / "killed"
    building = subprocess.Popen([*command, str(killed)])
    deadline = time.monotonic() + 60
    while not any(killed.glob(".bm25-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    building.send_signal(signal.SIGKILL)
    building.wait()
    assert read_metadata(killed) is not None
    with pytest.raises(SearchError, match="holds no bm25 index"):
        opened(killed)
    assert subprocess.run([*command, str(killed)], check=False).returncode == 0
    assert subprocess.run([*command, str(tmp_path / "clean")], check=False).returncode == 0
    assert tree(killed) == tree(tmp_path / "clean")


def test_every_engine_finds_the_same_documents_again_after_a_move(corpus: Path, root: Path, tmp_path: Path) -> None:
    build(root, corpus)
    shutil.move(root, tmp_path / "moved")
    assert best(tmp_path / "moved", "number17") == "p17"


def test_an_index_of_other_documents_is_said(corpus: Path, root: Path, tmp_path: Path) -> None:
    build(root, corpus, "bm25")
    build(tmp_path / "other", write_corpus(tmp_path / "other.jsonl", PASSAGES[:20]), "bm25")
    shutil.copy(tmp_path / "other" / "documents.arrow", root)
    with pytest.raises(SearchError, match="has 20 documents instead of"):
        opened(root)
    shutil.copy(tmp_path / "other" / "manifest.json", root)
    with pytest.raises(SearchError, match=r"the index of bm25 was made of .* documents, not 20"):
        opened(root)


@pytest.mark.parametrize("name", ["manifest.json", "documents.arrow", "bm25/params.index.json"])
def test_no_part_of_an_index_is_waited_for(name: str, corpus: Path, root: Path) -> None:
    build(root, corpus, "bm25")
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(SearchError, match=r"is no(t a)? regular file"):
        opened(root)


@pytest.mark.parametrize(
    "engines", [{"bm25": {}}, {"bm25": {"kind": 3}}, {"../bm25": {"kind": "bm25"}}, {"": {"kind": ""}}]
)
def test_engines_that_no_build_names_are_refused(engines: dict[str, Any], corpus: Path, root: Path) -> None:
    build(root, corpus, "bm25")
    metadata = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**metadata, "engines": engines}))
    with pytest.raises(SearchError, match="not the metadata of an index"):
        read_metadata(root)

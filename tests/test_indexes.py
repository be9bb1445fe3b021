"""`index`: the index of a corpus of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.indexes import Choice, build, default_folder, opened
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.search.index import read_metadata
from stepsearch_data.search.kinds import choose
from stepsearch_data.stages import STAGES
from tests.conftest import Run
from tests.serving import write_corpus

QUIET = Reporter(quiet=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl")


def test_it_lies_beside_the_corpus_and_is_built_once(corpus: Path, cli: Run) -> None:
    first = cli("index", "--corpus", corpus, "-e", "bm25", "-e", "chargram", "--set", "engines.bm25.k1=0.9")
    assert first.returncode == 0, first.stderr
    folder = corpus.with_name("corpus.jsonl.index")
    documents, bm25, chargram, last = first.stderr.splitlines()
    assert [line.split()[0] for line in (documents, bm25, chargram)] == ["documents", "bm25", "chargram"]
    assert last.startswith(f"{folder}: bm25, chargram over 400 passages; done in ")
    metadata = read_metadata(folder)
    assert metadata
    assert metadata.engines["bm25"]["k1"] == 0.9
    again = cli("index", "--corpus", corpus, "-e", "bm25", "-e", "chargram", "--set", "engines.bm25.k1=0.9")
    assert again.stderr == f"{folder}: bm25, chargram over 400 passages; current\n"
    assert again.stdout == ""


def test_rows_that_are_no_passages_are_said_and_end_in_3(corpus: Path, tmp_path: Path, cli: Run) -> None:
    corpus.write_text(corpus.read_text() + "{}\n")
    done = cli("index", "--corpus", corpus, "--index", tmp_path / "here")
    assert done.returncode == 3
    assert f"400 passages, 1 rejects in {tmp_path / 'here' / 'rejects.jsonl'}; done" in done.stderr
    assert cli("index", "--corpus", corpus, "--index", tmp_path / "here", "--quiet").stderr == ""


def test_what_cannot_be_indexed_is_an_error_of_one_line(corpus: Path, tmp_path: Path, cli: Run) -> None:
    result = cli("index", "--corpus", tmp_path / "none.jsonl")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 2)
    with pytest.raises(ConfigError, match="http needs no index"):
        build(corpus, None, choose(["http"], {}), QUIET)


def test_an_index_of_the_run_files_does_not_stand_in_for_that_of_the_corpus(corpus: Path, tmp_path: Path) -> None:
    build(corpus, None, choose(["bm25"], {"bm25": {"index": str(tmp_path / "other")}}), QUIET)
    assert read_metadata(default_folder(corpus)) is not None
    assert not (tmp_path / "other").exists()


def test_a_current_index_may_be_read_only(corpus: Path) -> None:
    build(corpus, None, choose(["bm25"], {}), QUIET)
    folder = default_folder(corpus)
    (folder / ".lock").unlink()  # opening it would make it again
    build(corpus, None, choose(["bm25"], {}), QUIET)
    assert not (folder / ".lock").exists()


def test_engines_are_those_of_the_index_as_they_were_built(corpus: Path) -> None:
    build(corpus, None, choose(["bm25", "mine"], {"mine": {"kind": "bm25", "b": 0.1}}), QUIET)
    choice = Choice(index=default_folder(corpus))
    with opened(choice, lambda first: load_config(STAGES, None, first, environment={}), QUIET) as index:
        assert [(engine.name, engine.kind.name, engine.config.b) for engine in index.engines] == [
            ("bm25", "bm25", 0.75),
            ("mine", "bm25", 0.1),
        ]
    own = ["engines.use=['mine']", "engines.mine.b=0.2"]
    with (
        pytest.raises(SearchError, match=r"mine index of .* was built with b=0.1"),
        opened(choice, lambda first: load_config(STAGES, None, [*first, *own], environment={}), QUIET),
    ):
        pass


def test_a_store_that_was_pulled_has_no_index_yet(sample_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sample_store, tmp_path / "store")
    for folder in store.glob("stages/index-*/index"):
        shutil.rmtree(folder)
    with (
        pytest.raises(SearchError, match="has no index yet") as caught,
        opened(Choice(store=store), lambda first: load_config(STAGES, None, first, environment={}), QUIET),
    ):
        pass
    assert f"stepsearch-data build --store {store} --to index" in caught.value.hint


@pytest.mark.parametrize("folder", [".", "/"])
def test_a_folder_is_no_corpus(folder: str) -> None:
    with pytest.raises(SearchError, match="there is no corpus"):
        build(Path(folder), None, choose(["bm25"], {}), QUIET)

"""`search`: one query on several engines, for a human and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stepsearch_data.cli import search
from stepsearch_data.cli.search import Hit, Result, snippet
from stepsearch_data.core.errors import ConfigError, SearchError, StoreError
from stepsearch_data.indexes import Choice, Load
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.stages import STAGES
from tests.conftest import Run
from tests.serving import write_corpus

QUERY = "The Barber of Seville composer"
DEAD = "http://127.0.0.1:9"


def load(*settings: str) -> Load:
    return lambda first: load_config(STAGES, None, [*first, *settings], environment={})


def found(choice: Choice, capfdbinary: pytest.CaptureFixture[bytes], *settings: str, k: int = 5) -> tuple[bool, Any]:
    """Whether an engine answered, and the JSON that is printed."""
    answered = search.ask_engines(QUERY, choice, load(*settings), k, as_json=True)
    return answered, json.loads(capfdbinary.readouterr().out)


def test_all_engines_of_the_store_are_asked(sample_store: Path, cli: Run) -> None:
    shown = cli("search", QUERY, "--store", sample_store, "-k", "2", "--json")
    assert shown.returncode == 0, shown.stderr
    data = json.loads(shown.stdout)
    (hits,) = data["hits"].values()
    assert list(data["hits"]) == list(data["latency"]) == ["bm25"]
    assert [hit["rank"] for hit in hits] == [1, 2]
    assert set(hits[0]) == {"rank", "score", "id", "title", "text", "url"}
    assert hits[0]["title"] == "The Barber of Seville"
    assert hits[0]["score"] > hits[1]["score"] > 0


def test_documents_stand_side_by_side_with_title_score_and_a_piece_of_text(sample_store: Path, cli: Run) -> None:
    shown = cli("search", QUERY, "--store", sample_store, "-k", "2", "-e", "bm25", "-e", f"http={DEAD}").stdout
    heading, _, first, text, *_ = shown.splitlines()
    assert heading.split()[0] == "bm25"
    assert heading.split()[3] == "http"
    assert first.startswith("1. The Barber of Seville  6.")
    assert first.index("error: ") == heading.index("http")
    assert text.startswith("The Barber of Seville is a comic opera in two acts by Gioachino Rossini.")
    assert "\x1b" not in shown


def test_one_answer_is_enough(sample_store: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    down = f"engines.http.url='{DEAD}'"
    once = "engines.http.max_attempts=1"
    both = found(Choice(store=sample_store), capfdbinary, "engines.use=['bm25', 'http']", down, once)
    assert both[0]
    assert both[1]["hits"]["http"] == []
    assert "127.0.0.1" in both[1]["errors"]["http"]
    assert found(Choice(store=sample_store), capfdbinary, "engines.use=['http']", down, once)[0] is False


def test_a_missing_key_is_the_error_of_its_engine_alone(
    sample_store: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    answered, data = found(Choice(store=sample_store), capfdbinary, "engines.use=['serper', 'bm25']")
    assert answered
    assert "SERPER_API_KEY" in data["errors"]["serper"]


def test_a_corpus_is_indexed_first(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", [{"id": "a", "title": "Opera", "text": "a barber of Seville"}])
    assert found(Choice(corpus=corpus), capfdbinary)[1]["hits"]["bm25"][0]["id"] == "a"
    moved = (tmp_path / "c.jsonl.index").rename(tmp_path / "moved")
    assert found(Choice(index=moved), capfdbinary)[1]["hits"]["bm25"][0]["text"] == "a barber of Seville"
    elsewhere = found(Choice(corpus=corpus), capfdbinary, f"engines.bm25.index='{moved}'")[1]["hits"]["bm25"]
    assert [(hit["id"], hit["text"]) for hit in elsewhere] == [("a", "a barber of Seville")]


@pytest.mark.parametrize("query", ["", "?!", "(X:"])
def test_a_query_without_a_word_finds_nothing(
    sample_store: Path, query: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.ask_engines(query, Choice(store=sample_store), load(), 5, as_json=False)
    assert capsys.readouterr().out.splitlines()[2].strip() == "nothing found"


def test_what_cannot_be_searched_is_an_error(sample_store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        search.ask_engines("q", Choice(store=tmp_path), load(), 1, as_json=True)
    with pytest.raises(SearchError, match="holds bm25, but no tantivy"):
        search.ask_engines("q", Choice(store=sample_store), load("engines.use=['tantivy']"), 1, as_json=True)
    with pytest.raises(ConfigError, match="there is no search engine 'bm52'"):
        search.ask_engines("q", Choice(store=sample_store), load("engines.use=['bm52']"), 1, as_json=True)
    with pytest.raises(ConfigError, match="not valid UTF-8"):
        search.ask_engines("\ud800", Choice(store=sample_store), load(), 1, as_json=True)


LONG = "Before it there is much else to be said. " * 10 + "Here Rossini composed. " + "After it too. " * 20


def test_a_snippet_begins_a_little_before_the_querys_words() -> None:
    assert snippet("A short\n text.", {"nothing"}) == "A short text."
    piece = snippet(LONG, {"rossini"})
    assert piece.startswith("…")
    assert piece.endswith("…")
    assert 0 < piece.index("Rossini") < 80
    assert snippet(LONG, {"before"}).startswith("Before it")


def screen(results: list[Result], width: int) -> str:
    """What a terminal of this width would show."""
    console = Console(width=width, force_terminal=True, color_system="truecolor", highlight=False)
    with console.capture() as capture:
        search.print_results(console, results, {"rossini"})
    return capture.get()


HIT = Hit(1, 2.5, "d1", "Opera [bold]", "by Rossini \x1b]0;evil\x07", "http://x")


def test_the_querys_words_are_marked_and_data_is_only_text() -> None:
    shown = screen([Result("bm25", [HIT], "", 0.01)], 100)
    assert "\x1b[1;33mRossini" in shown
    assert "Opera [bold]" in shown
    assert "\\x1b]0;evil\\x07" in shown
    assert "\x1b]0" not in shown


def test_a_narrow_terminal_shows_one_engine_after_the_other() -> None:
    results = [Result(name, [HIT], "", 0.01) for name in ("bm25", "tantivy")]
    wide, narrow = (screen(results, width).splitlines() for width in (100, 50))
    assert any("bm25" in line and "tantivy" in line for line in wide)
    assert not any("bm25" in line and "tantivy" in line for line in narrow)
    assert any("tantivy" in line for line in narrow)

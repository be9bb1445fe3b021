"""Tables for people in a terminal that is too narrow for them."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from stepsearch_data.cli import evaluate, look, printing
from stepsearch_data.core.terminal import visible

NUMBERS = {
    "questions": 12_345,
    "hops": 54_321,
    "queries": 99_999,
    "hop_hit_at_3": 0.9876,
    "pass_at_1": 0.8765,
    "pass_at_3": 0.7654,
    "pass_at_5": 0.6543,
    "kept_share": 0.1111,
    "kept_per_hop": 3.9191,
    "kept_per_hop_min": 2,
    "complete": 12_121,
    "leaks": 0,
    "waiting": 0,
}
ENGINE_VOTES = {
    "queries": 654_321,
    "answered": 654_300,
    "valid": 0.9666,
    "gold_at_1": 0.9001,
    "gold_at_3": 0.9666,
    "valid_alone": 12_000,
    "invalid_alone": 3_456,
}


def screen_of(width: int, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    screen = io.StringIO()
    monkeypatch.setattr(printing, "make_console", lambda: Console(width=width, file=screen, highlight=False))
    return screen


CHECKED = {
    "asked": 81,
    "failed": 3,
    "share": 0.037,
    "low": 0.013,
    "high": 0.103,
    "asked_whole": 4,
    "failed_whole": 0,
    "judge": "rules",
    "passages": 140_000,
}


STEP = {"count": 1_234, "of": 5_678, "share": 0.217, "low": 0.207, "high": 0.228, "dollars": None, "dollars_each": None}


def printed(width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    screen = screen_of(width, monkeypatch)
    parts = {"hotpotqa 2 hops": NUMBERS}
    measures = {
        "by_funnel": {
            "links": {**dict.fromkeys(STEP), "count": 123_456},
            "not composed: no reply": STEP,
            "passed": {**STEP, "dollars": 21.5, "dollars_each": 0.00234},
        },
        "by_source": {"hotpotqa": NUMBERS},
        "by_source_and_hops": parts,
        "by_engine": {"rank-bm25": ENGINE_VOTES},
        "by_gate": {
            "sub_question_is_question": {"hotpotqa": 77, "musique": 88},
            "eval_overlap": {"hotpotqa": None, "musique": None},
        },
        "unchecked": {"eval_overlap": "not checked"},
        "by_split": {"validation": {"hotpotqa": 1_234, "musique": 5_678}},
        "by_check": {"hotpotqa unlinked_hop": CHECKED},
    }
    look.print_audit(measures)
    return screen.getvalue()


@pytest.mark.parametrize("width", [20, 60, 80, 100])
def test_the_numbers_of_an_audit_stay_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(width, monkeypatch)
    whole = ["12,345", "54,321", "0.988", "0.876", "0.765", "0.654", "3.919", "12,121", "0"]
    assert [line.split()[-9:] for line in text.splitlines() if "12,345" in line] == [whole, whole]
    assert {"hotpotqa", "questions", "hit@3", "complete", "leaks"} <= set(text.split())


def test_gates_and_splits_are_counted_by_source(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.split() for line in printed(80, monkeypatch).splitlines()]
    assert ["sub_question_is_question", "77", "88"] in lines
    assert ["eval_overlap", "not", "checked", "not", "checked"] in lines
    assert ["validation", "1,234", "5,678"] in lines
    assert ["hotpotqa", "unlinked_hop", "81", "3", "0.037", "0.013", "0.103", "rules", "140,000"] in lines


def test_steps_from_documents_are_told_with_shares_and_parts_of_a_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.split() for line in printed(80, monkeypatch).splitlines()]
    assert ["links", "123,456"] in lines
    assert ["passed", "1,234", "5,678", "0.217", "0.207", "0.228", "21.50000", "0.00234"] in lines


def test_an_audit_fits_a_common_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(len(line) for line in printed(80, monkeypatch).splitlines()) <= 80


def test_what_eval_measures_fits_a_common_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(80, monkeypatch)
    part = {"em": 0.14, "em_interval": (0.08, 0.21), "f1": 0.173, "f1_interval": (0.109, 0.249)}
    acts = ("redundant_searches", "repeated_queries", "format_errors")
    part |= {"questions": 12_345, "searches": 2.97, "own_tokens": 162.61, "support_recall": 0.109}
    evaluate.print_measures(
        {"all": {"musique, 2 hops": {**part, **dict.fromkeys(acts, 0.1), "ended": {"answer": 0.99}}}}
    )
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[3:] for line in lines if line.startswith("musique")] == [
        ["12,345", "0.140", "0.080–0.210", "0.173", "0.109–0.249", "0.109"],
        ["2.970", "0.100", "0.100", "0.100", "162.610", "0.990"],
    ]


@pytest.mark.parametrize("width", [20, 60, 80])
def test_names_ids_and_digests_stay_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(width, monkeypatch)
    query_id, digest = "4hop2__175929_309556_147170_6685__unanswerable/1/1", "0123456789abcdef" * 4
    printing.grid(("id", "query", "digest"), [(query_id, "who wrote The Double Helix, and when", digest)])
    assert {query_id, digest} <= set(screen.getvalue().split())


def test_a_long_text_without_spaces_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(60, monkeypatch)
    printing.grid(("question",), [("谁写了双螺旋" * 10,)])
    assert max(map(cell_len, screen.getvalue().splitlines())) <= 60


def test_control_characters_are_written_out() -> None:
    assert visible("a\tb\nü→\u00a0") == "a\tb\nü→\u00a0"
    assert visible("\x00\x07\x08\r\x1b\x7f\x80\x9f") == r"\x00\x07\x08\x0d\x1b\x7f\x80\x9f"

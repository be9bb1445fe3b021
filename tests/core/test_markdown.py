from __future__ import annotations

import json

import pytest

from stepsearch_data.core.markdown import example, fence, plain, table


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a|b", r"a\|b"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("[x](y)", r"\[x\]\(y\)"),
        ("# one\n\ntwo", r"\# one two"),
        ("\x1b[31m", r"\\x1b\[31m"),
    ],
)
def test_a_line_of_text_is_no_markup(text: str, safe: str) -> None:
    assert plain(text) == safe


def test_a_fence_is_longer_than_any_inside() -> None:
    assert fence("a\n````\nb") == "`````\na\n````\nb\n`````"


def test_a_table_aligns_numbers_and_writes_shares_as_percentages() -> None:
    assert table(("a|", "n", "share"), [("x|y", 1234, 0.5), ("z", None, 1.0)]).splitlines() == [
        "| a| | n | share |",
        "| --- | ---: | ---: |",
        r"| x\|y | 1,234 | 50.0% |",
        "| z | – | 100.0% |",
    ]


def test_an_example_is_cut_but_stays_json() -> None:
    shown = example({"text": "x" * 1000, "list": list(range(10)), "n": None})
    row = json.loads(shown.removeprefix("```json\n").removesuffix("\n```"))
    assert row == {"text": "x" * 160 + "… (1,000 characters)", "list": [0, 1, "… 8 more"], "n": None}

"""Passages: Search-R1's `contents` and what it is joined from."""

from __future__ import annotations

import pytest

from stepsearch_data.sources.passages import join_contents, split_contents


@pytest.mark.parametrize(("title", "text"), [("A title", "a text"), ("", "a text"), ('"Q"', "b\nc"), ("T", "")])
def test_contents_are_the_title_in_quotes_and_the_text(title: str, text: str) -> None:
    assert split_contents(join_contents(title, text)) == (title, text)


def test_a_text_of_several_lines_without_a_title_keeps_its_first_line() -> None:
    assert split_contents(join_contents("", "one\ntwo")) == ("", "one\ntwo")

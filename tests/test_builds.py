"""Options as settings."""

from __future__ import annotations

import pytest

from stepsearch_data.builds import engine_settings


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (None, []),
        (["bm25"], ['engines.use=["bm25"]']),
        (["bm25", "http=http://a:1"], ['engines.use=["bm25", "http"]', 'engines.http.at="http://a:1"']),
        (
            ["http=http://a", "http=http://b"],
            [
                'engines.use=["http", "http-2"]',
                'engines.http.at="http://a"',
                'engines.http-2.kind="http"',
                'engines.http-2.at="http://b"',
            ],
        ),
        (["bm25", "bm25"], ['engines.use=["bm25", "bm25"]']),  # refused later, with what to do about it
    ],
)
def test_engines_on_the_command_line_are_settings(given: list[str] | None, settings: list[str]) -> None:
    assert engine_settings(given) == settings

from __future__ import annotations

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.release.hub import parse_name
from stepsearch_data.release.publish import check_tag


@pytest.mark.parametrize(
    ("text", "expected"),
    [("ann/data", ("ann/data", None)), ("a.b/d_1-x@v1.0.0", ("a.b/d_1-x", "v1.0.0")), ("a/b@x/y", ("a/b", "x/y"))],
)
def test_a_dataset_and_its_revision_have_names(text: str, expected: tuple[str, str | None]) -> None:
    assert parse_name(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "data", "a/b/c", "ann/../x", "ann/da ta", "ann/--x", "ann/x--y", "ann/x@", "ann/x\n", "ann/é"),
        *("ann/x.git", "ann/.git", "hf://ann/x", "ann/" + "x" * 97),
    ],
)
def test_what_the_hub_would_not_take_as_a_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no name of a dataset"):
        parse_name(text)


@pytest.mark.parametrize("tag", [None, "v1.0.0", "1", "2026-01-01", "v1_a+b", "main2", "v" * 100])
def test_a_version_has_a_name(tag: str | None) -> None:
    check_tag(tag)


@pytest.mark.parametrize(
    "tag",
    [
        *("", "main", "HEAD", "refs/heads/x", "a b", "v1..2", "-x", ".x", "x.", "x.lock", "v1@{1}", "v1\n", "é"),
        *("v" * 101, "a" * 40),
    ],
)
def test_what_git_would_not_take_as_a_tag_or_for_another_is_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match="no name of a version"):
        check_tag(tag)

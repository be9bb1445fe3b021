from __future__ import annotations

import time

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.release.hub import parse_name, patiently
from stepsearch_data.release.publish import check_tag
from stepsearch_data.remote.http import TransientError


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
    with pytest.raises(ConfigError, match="not the name of a dataset"):
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
    with pytest.raises(ConfigError, match="not a valid name of a version"):
        check_tag(tag)


class Call:
    """Fails as often as there are errors, then succeeds."""

    def __init__(self, *errors: Exception, seconds: float = 0.0) -> None:
        self.errors, self.seconds, self.calls = list(errors), seconds, 0

    def __call__(self) -> str:
        self.calls += 1
        time.sleep(self.seconds)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_what_may_pass_is_asked_again() -> None:
    call = Call(*(TransientError("busy", 0.0) for _ in range(4)))
    assert patiently(call, 1.0, print) == "done"
    assert call.calls == 5


def test_also_where_it_is_the_cause_of_another_error() -> None:
    wrapped = RuntimeError("cannot upload")
    wrapped.__cause__ = TransientError("busy", 0.0)
    assert patiently(Call(wrapped), 1.0, print) == "done"


def test_what_stays_wrong_is_not() -> None:
    call = Call(ValueError("no"), ValueError("still no"))
    with pytest.raises(ValueError, match=r"^no$"):
        patiently(call, 1.0, print)
    assert call.calls == 1


def test_patience_begins_with_the_first_failure_and_not_with_the_work() -> None:
    assert patiently(Call(TransientError("busy", 0.0), seconds=0.3), 0.1, print) == "done"


def test_patience_ends() -> None:
    call = Call(*(TransientError("busy", 0.1) for _ in range(100)))
    with pytest.raises(TransientError):
        patiently(call, 0.35, print)
    assert 3 <= call.calls <= 4


def test_waits_that_are_longer_than_patience_are_not_begun() -> None:
    call = Call(TransientError("busy", 60.0))
    with pytest.raises(TransientError):
        patiently(call, 30.0, print)
    assert call.calls == 1

"""When a call to the Hub is repeated, and for how long."""

from __future__ import annotations

import time

import pytest

from stepsearch_data.release.client import patiently
from stepsearch_data.remote.http import TransientError


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

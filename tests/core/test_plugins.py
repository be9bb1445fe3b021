"""What other packages declare: found by name, imported when asked for, and named when it is broken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.plugins import Registry
from tests.plugins import install

GROUP = "stepsearch_data.tests"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """One declaration of ours, and what tests install beside it."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield Registry(GROUP, "thing", {"fraction": "fractions:Fraction"})
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_ours_come_first_and_are_not_replaced(registry: Registry, tmp_path: Path) -> None:
    install(tmp_path, GROUP, "another", "class DECLARED: ...")
    install(tmp_path, GROUP, "fraction", "DECLARED = None")
    assert registry.names() == ["fraction", "another"]
    assert registry.load("fraction", type) is Fraction
    assert "another_plugin" not in sys.modules
    assert registry.load("another", type).__module__ == "another_plugin"


def test_an_unknown_name_is_told_with_those_that_are_known(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="there is no thing 'fractoin'") as caught:
        registry.load("fractoin", type)
    assert caught.value.hint == "did you mean fraction?"
    with pytest.raises(ConfigError) as caught:
        registry.load("zzz", type)
    assert caught.value.hint == "known: fraction"


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import surely_not_there", "cannot be loaded: ModuleNotFoundError: No module named 'surely_not_there'"),
        ("OTHER = 1", "cannot be loaded: AttributeError: "),
        ("1 /\\\n 0", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("def", "cannot be loaded: SyntaxError: "),
    ],
)
def test_a_package_that_is_broken_is_named(registry: Registry, tmp_path: Path, code: str, fault: str) -> None:
    install(tmp_path, GROUP, "broken", code)
    with pytest.raises(ConfigError, match=f"^the thing broken of the package broken-plugin {fault}") as caught:
        registry.load("broken", type)
    assert "pip uninstall broken-plugin" in caught.value.hint
    assert "\n" not in caught.value.message


def test_what_is_of_another_type_or_name_is_refused(registry: Registry, tmp_path: Path) -> None:
    install(tmp_path, GROUP, "odd", "class Odd:\n    name = 'even'\nDECLARED = Odd()")
    install(tmp_path, GROUP, "text", "DECLARED = 'text'")
    refused = "of the package {0}-plugin is not a stepsearch_data {1} named {0}"
    with pytest.raises(ConfigError, match=refused.format("odd", "object")):
        registry.load("odd", object)
    with pytest.raises(ConfigError, match=refused.format("text", "Registry")):
        registry.load("text", Registry)

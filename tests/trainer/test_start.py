"""What `train` refuses before anything is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import Run

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("arguments", [[], ["--demo", "quick", "--config", "recipe.toml"]], ids=["neither", "both"])
def test_a_recipe_or_the_demo(cli: Run, arguments: list[str]) -> None:
    done = cli("train", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected a recipe or the demo\nhint: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--demo", "quick", "--resume"], "--resume means nothing to --demo"),
        (["--demo", "quick", "--set", "ppo.cliprange=1"], "--set ppo.cliprange=1 means nothing to --demo"),
        (["--config", "recipe.toml", "--workers", "2"], "--workers means nothing without --demo"),
        (["--config", "recipe.toml", "--json"], "--json means nothing without --demo, --dry-run or --check"),
        (["--config", "recipe.toml", "--seed", "0"], "--seed means nothing without --demo"),
        (["--config", "recipe.toml", "--dry-run", "--check"], "--check means nothing with --dry-run"),
        (["--config", "recipe.toml", "--dry-run", "--engine", "bm25"], "--engine means nothing with --dry-run"),
        (["--config", "recipe.toml", "--check", "--push-to-hub", "ann/p"], "--push-to-hub means nothing with --check"),
    ],
)
def test_what_would_be_ignored_is_refused(cli: Run, arguments: list[str], said: str) -> None:
    done = cli("train", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}\nhint: leave it out")


@pytest.mark.skipif(bool(importlib.util.find_spec("torch")), reason="torch is installed")
@pytest.mark.parametrize("arguments", [["--demo", "quick"], ["--config", RECIPES / "qwen2.5-3b.toml"]])
def test_without_torch_it_says_what_to_install(cli: Run, arguments: list[str | Path], tmp_path: Path) -> None:
    done = cli("train", *arguments, "--output", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: training needs ")
    assert "hint: pip install 'stepsearch-data[train]'" in done.stderr

"""Recipes: those that are shipped, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.rewards import PAPER, RELEASED
from stepsearch_data.trainer.recipe import Recipe, Rewards, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.toml")), ids=lambda file: file.stem)
def test_a_shipped_recipe_can_be_cut_into_batches(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.schedule.rollouts % recipe.ppo.minibatch == 0
    assert recipe.ppo.minibatch % recipe.ppo.micro == 0
    assert (recipe.store, recipe.output) == (Path("store"), Path("runs/steppo"))  # where the reader is, not the recipe


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = load_recipe(RECIPES / "qwen2.5-3b.toml")
    ours = Recipe.model_validate({"model": {"path": recipe.model.path}})
    assert recipe.schedule == ours.schedule
    assert recipe.limits == ours.limits
    assert recipe.rewards.config() == PAPER
    assert (recipe.ppo.clip, recipe.ppo.kl, recipe.ppo.minibatch) == (0.2, 1e-3, 64)


def test_the_releases_recipe_has_its_rewards() -> None:
    recipe = load_recipe(RECIPES / "qwen2.5-3b-released.toml")
    assert recipe.rewards.config() == RELEASED
    assert (recipe.schedule.updates, recipe.schedule.rollouts, recipe.schedule.actor_lr) == (1120, 128, 5e-7)


def test_places_are_relative_to_the_recipe_and_settings_to_the_reader(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('store = "data"\ntemplate = "words.txt"\n[model]\npath = "tiny"')
    recipe = load_recipe(file, ["output=here"])
    assert (recipe.store, recipe.template) == (tmp_path / "data", str(tmp_path / "words.txt"))
    assert recipe.output == Path("here")
    assert recipe.anywhere().output == Path.cwd() / "here"
    assert recipe.model.path == "tiny"  # no folder: a name on the Hub
    (tmp_path / "tiny").mkdir()
    assert load_recipe(file).model.path == str(tmp_path / "tiny")
    assert load_recipe(file, ["template=paper"]).anywhere().template == "paper"


def test_the_name_of_a_variant_says_what_is_left_out() -> None:
    assert Rewards().name == "paper"
    assert Rewards(preset="released", without=["key", "gain"]).name == "released-no-key-no-gain"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ppo.clipp=1", "ppo.clipp is unknown; known: gamma"),
        ("model.rank=4", "model.rank: Extra inputs"),
        ("schedule.updates=many", "schedule.updates: Input should be a valid integer"),
        ("rewards.preset=none", "rewards.preset: Input should be 'paper'"),
        ("updates", "expected KEY=VALUE"),
        ("schedule=5", "schedule: Input should be"),
        ("sft=true", "sft: Input should be"),
        ("held_out.x=1", "held_out is no section"),
        ("ppo.micro=0", "ppo.micro: Input should be greater than or equal to 1"),
        ("ppo.clip=nan", "ppo.clip: Input should be a number"),
        ("schedule.rollouts=-64", "schedule.rollouts: Input should be greater"),
        ("schedule.temperature=0", "schedule.temperature: Input should be greater than 0"),
        ("limits.total=0", "limits.total: Input should be greater"),
    ],
)
def test_what_is_unknown_or_wrong_is_named(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_recipe(RECIPES / "qwen2.5-3b.toml", [setting])
    assert said in refused.value.message


@pytest.mark.parametrize(("text", "said"), [("[model", "is not valid TOML"), (None, "cannot read the recipe")])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str | None, said: str) -> None:
    if text:
        (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_recipe(tmp_path / "recipe.toml")

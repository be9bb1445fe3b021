"""Recipes: those that are shipped, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.rewards import PAPER, PRESETS, REFERENCE, without
from stepsearch_data.trainer.config import PPOConfig
from stepsearch_data.trainer.recipe import Model, Recipe, Rewards, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.toml")), ids=lambda file: file.stem)
def test_a_shipped_recipe_can_be_cut_into_batches(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.schedule.rollout_batch_size % recipe.ppo.mini_batch_size == 0
    assert recipe.ppo.mini_batch_size % recipe.ppo.micro_batch_size == 0
    assert (recipe.store, recipe.output) == (Path("store"), Path("runs/steppo"))  # where the reader is, not the recipe


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = load_recipe(RECIPES / "qwen2.5-3b.toml")
    ours = Recipe.model_validate({"model": {"path": recipe.model.path}})
    assert recipe.schedule == ours.schedule
    assert recipe.limits == ours.limits
    assert recipe.rewards.config() == PAPER
    assert (recipe.ppo.cliprange, recipe.ppo.kl_coef, recipe.ppo.mini_batch_size) == (0.2, 1e-3, 64)


def test_the_reference_recipe_has_its_rewards() -> None:
    recipe = load_recipe(RECIPES / "qwen2.5-3b-reference.toml")
    assert recipe.rewards.config() == REFERENCE
    schedule = recipe.schedule
    assert (schedule.num_updates, schedule.rollout_batch_size, schedule.learning_rate) == (1120, 128, 5e-7)


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
    assert Rewards(preset="reference", without=["key", "gain"]).name == "reference-no-key-no-gain"
    beyond = Rewards(repeated_queries_only=True, answer_gain=0.5, step_until=40)
    assert beyond.name == "paper-repeats-only-answer-gain-0.5-step-until-40"


def test_a_variant_is_named_after_its_credit_too(tmp_path: Path) -> None:
    recipe = Recipe(model=Model(path="tiny"), output=tmp_path, ppo=PPOConfig(group_size=8))
    assert recipe.variant == "paper-group-8"
    assert recipe.model_copy(update={"ppo": PPOConfig(turn_level_gae=True)}).variant == "paper-turn-level"


def test_a_recipe_takes_every_preset_and_switch() -> None:
    assert {preset: Rewards(preset=preset).config() for preset in PRESETS} == PRESETS
    assert Rewards(preset="reference", without=["key"]).config() == without(REFERENCE, "key")
    assert Rewards(repeated_queries_only=True).config() == replace(PAPER, repeated_queries_only=True)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ppo.clipp=1", "ppo.clipp is unknown; known: gamma"),
        ("rewards.preset=released", "rewards.preset: Input should be 'paper', 'reference', 'gain+key' or 'outcome'"),
        ("model.rank=4", "model.rank: Extra inputs"),
        ("schedule.num_updates=many", "schedule.num_updates: Input should be a valid integer"),
        ("rewards.preset=none", "rewards.preset: Input should be 'paper'"),
        ("updates", "expected KEY=VALUE"),
        ("schedule=5", "schedule: Input should be"),
        ("sft=true", "sft: Input should be"),
        ("held_out.x=1", "held_out is not a section"),
        ("ppo.micro_batch_size=0", "ppo.micro_batch_size: Input should be greater than or equal to 1"),
        ("ppo.cliprange=nan", "ppo.cliprange: Input should be a number"),
        ("schedule.rollout_batch_size=-64", "schedule.rollout_batch_size: Input should be greater"),
        ("schedule.temperature=0", "schedule.temperature: Input should be greater than 0"),
        ("limits.max_length=0", "limits.max_length: Input should be greater"),
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

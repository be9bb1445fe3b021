"""What is reckoned is what an update of a small model takes, and what docs/training.md says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from stepsearch_data.core.errors import TrainError
from stepsearch_data.trainer import estimate as reckoning
from stepsearch_data.trainer.batch import collate
from stepsearch_data.trainer.estimate import Estimate, estimate_for
from stepsearch_data.trainer.loading import load_critic, load_policy
from stepsearch_data.trainer.model import ActorCritic, ReferencePolicy
from stepsearch_data.trainer.optimizer import make_optimizer
from stepsearch_data.trainer.recipe import Recipe, load_recipe
from stepsearch_data.trainer.search_env import Episode, Task
from stepsearch_data.trainer.update import compute_advantages, ppo_update
from tests.conftest import run_cli
from tests.trainer.families import config_of, make_tokenizer, named
from tests.trainer.live import LiveTensors

ROOT = Path(__file__).parents[2]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 2000,
}
LENGTH, ROWS = 160, 4
SHIPPED = {
    "qwen2.5-3b": "qwen2.5-3b",
    "qwen2.5-3b-reference": "qwen2.5-3b",
    "qwen2.5-7b": "qwen2.5-7b",
    "qwen3-4b": "qwen3-4b",
    "llama-3.2-3b": "llama-3.2-3b",
    "gemma-3-4b": "gemma-3-4b",
    "one-gpu-1.5b-lora": "qwen2.5-1.5b",
}
"""Recipes and the configurations of their models."""


def recipe_of(folder: Path, *, rank: int = 0, checkpointing: bool = False, group: int = 1) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"path": str(folder), "lora_rank": rank, "gradient_checkpointing": checkpointing},
            "schedule": {"rollout_batch_size": ROWS, "num_updates": 2},
            "ppo": {"mini_batch_size": ROWS, "micro_batch_size": 2, "group_size": group},
            "limits": {"max_length": LENGTH},
        }
    )


def episodes() -> list[Episode]:
    """As long as they may be, in two turns, of which the policy wrote the share that is reckoned with."""
    own = round(reckoning.OWN * LENGTH / 2)
    mask = ([True] * own + [False] * (LENGTH // 2 - own)) * 2
    task = Task("q", "", "", ("a",))
    return [Episode(task, [1], list(range(2, LENGTH + 1)), mask[: LENGTH - 1]) for _ in range(ROWS)]


def measured(recipe: Recipe) -> tuple[int, int]:
    """The most bytes of tensors at a time in two updates, the second with Adam's moments, and operations of one."""
    policy, _ = load_policy(recipe.model.path, recipe)
    critic = load_critic(recipe.model.path, recipe) if recipe.ppo.has_critic else None
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ROWS // recipe.ppo.micro_batch_size)
    reference = ReferencePolicy(policy)
    optimizer, scheduler = make_optimizer(policy, critic, recipe.schedule, 2)
    model, optimizer = accelerator.prepare(ActorCritic(policy, critic), optimizer)
    batch = collate(episodes(), [[(0, 1.0)] for _ in range(ROWS)], 0, torch.device("cpu"))
    parameters = {name: [*part.parameters()] for name, part in model.named_children()}

    def update() -> None:
        compute_advantages(model.eval(), reference, batch, recipe.ppo, accelerator)
        ppo_update(model.train(), parameters, optimizer, scheduler, batch, recipe.ppo, accelerator)

    frozen = reference._copy.parameters() if reference._copy else ()
    with LiveTensors([*model.parameters(), *frozen]) as live:
        update()
        update()
    with FlopCounterMode(display=False) as operations:
        update()
    return live.peak, operations.get_total_flops()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # transformers asks for it itself
@pytest.mark.parametrize("kept", ["all", "between layers", "adapters", "no critic"])
@pytest.mark.parametrize("name", ["qwen2.5-7b", "qwen3-4b"])
def test_memory_and_operations_are_those_of_an_update(name: str, kept: str, tmp_path: Path) -> None:
    """By a third at most too much, by a tenth too little: memory that is missing costs more than memory that is left.

    Operations of attention are not counted on CPU.
    """
    torch.set_num_threads(1)
    config = config_of(name, **SIZES)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    make_tokenizer(named(name), ["a b c"], instruct=True).save_pretrained(tmp_path)
    changed: dict[str, dict[str, Any]] = {
        "adapters": {"rank": 8},
        "between layers": {"checkpointing": True},
        "no critic": {"group": ROWS},
    }
    recipe = recipe_of(tmp_path, **changed.get(kept, {}))
    told = estimate_for(recipe, config, config)
    size, operations = measured(recipe)
    reckoned = sum(part.size for part in told.parts if part.phase in {"always", "update"})
    assert 0.9 < reckoned / size < 1.33
    assert 0.9 < told.operations / reckoning.FILLED / operations < 1.33


def told_by_recipe() -> dict[str, tuple[Recipe, Estimate]]:
    found = {}
    for name, model in SHIPPED.items():
        recipe, config = load_recipe(ROOT / "recipes" / f"{name}.toml"), config_of(model)
        found[name] = recipe, estimate_for(recipe, config, config)
    return found


def row_of(name: str, recipe: Recipe, told: Estimate) -> str:
    """A row of the table in docs/training.md."""

    def size(*phases: str) -> str:
        return f"{max(sum(part.size for part in told.parts if part.phase == phase) for phase in phases) / 1e9:.1f}"

    machine, (rollouts, update) = recipe.hardware, told.seconds.values()
    cells = [
        f"`{name}`",
        f"{told.parameters / 1e9:.2f}",
        f"{machine.gpus} of {machine.memory_gb:g} GB, {machine.sharding}",
        *(size("always"), size("update"), size("rollouts", "evaluation")),
        f"**{told.peak / 1e9:.0f}**",
        f"{update:.0f} s",
        f"{rollouts:.0f} s",
        f"{told.hours:.0f} h",
    ]
    return f"| {' | '.join(cells)} |"


def test_the_documentation_says_what_is_reckoned() -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    for name, (recipe, told) in told_by_recipe().items():
        assert row_of(name, recipe, told) in page
        assert told.peak < recipe.hardware.memory_gb * 1e9, name
    recipe, config = load_recipe(ROOT / "recipes" / "qwen2.5-3b.toml", ["ppo.group_size=8"]), config_of("qwen2.5-3b")
    without = estimate_for(recipe, config, config)
    seconds = without.seconds["advantages and update"]
    assert (
        f"`qwen2.5-3b` then needs {without.peak / 1e9:.0f} GB\nof each GPU, not 58, and an update {seconds:.0f} s"
        in page
    )
    assert SHIPPED.keys() == {file.stem for file in (ROOT / "recipes").glob("*.toml")}


def test_micro_batches_by_tokens_and_a_policy_that_samples_ahead_count() -> None:
    recipe, config = recipe_of(ROOT), config_of("qwen3-4b", **SIZES)

    def sizes(**changed: Any) -> dict[str, float]:
        other = recipe.model_copy(update={name: replace(getattr(recipe, name), **now) for name, now in changed.items()})
        return {part.name: part.size for part in estimate_for(other, config, config).parts}

    inside = sizes()["kept inside layers"]
    assert sizes(ppo={"micro_batch_tokens": 4 * LENGTH})["kept inside layers"] == 2 * inside
    assert sizes(ppo={"micro_batch_tokens": 1})["kept inside layers"] == inside / 2  # one rollout at least
    assert sizes(schedule={"overlap": True}).keys() - sizes().keys() == {"the policy that samples"}


def test_without_a_critic_its_weights_and_its_part_of_an_update_are_not_reckoned() -> None:
    config = config_of("qwen3-4b", **SIZES)
    both, policy = (estimate_for(recipe_of(ROOT, group=group), config, config) for group in (1, ROWS))
    sizes = [{part.name: part for part in told.parts} for told in (both, policy)]
    for name in ("weights", "gradients and Adam"):
        assert sizes[0][name].size == 2 * sizes[1][name].size  # the policy's output layer is its input layer
    assert sizes[0]["weights"].counted.endswith("of policy and critic")
    assert sizes[1]["weights"].counted.endswith("of the policy")
    assert sizes[0]["reference"] == sizes[1]["reference"]
    assert policy.operations < 0.7 * both.operations


@pytest.mark.parametrize("name", ["mamba2", "t5", "qwen3_moe"])
def test_models_of_other_layers_are_not_reckoned(name: str) -> None:
    config = CONFIG_MAPPING[name]()
    with pytest.raises(TrainError, match=f"{name} models are not reckoned"):
        estimate_for(recipe_of(ROOT), config, config)


def test_matrices_of_gpt2_count_though_they_are_no_linear_layers() -> None:
    config = CONFIG_MAPPING["gpt2"](n_embd=64, n_layer=2, n_head=4, n_positions=8, vocab_size=10)
    told = estimate_for(recipe_of(ROOT, rank=2), config, config)
    (adapters,) = (part.size for part in told.parts if part.name.startswith("adapters"))
    widths = 64 + 3 * 64, 64 + 64, 64 + 4 * 64, 4 * 64 + 64  # queries with keys and values, output, up, down
    assert adapters == 16 * 2 * (2 * 2 * sum(widths))  # of rank 2, in two layers of policy and critic


def dry_run(folder: Path, *flags: str) -> CompletedProcess[str]:
    """`train --dry-run` of a model in a folder."""
    recipe, model = ROOT / "recipes" / "qwen3-4b.toml", f"model.path={folder / 'model'}"
    return run_cli("train", "--config", recipe, "--set", model, "--dry-run", "-o", folder / "run", *flags)


def test_a_dry_run_prints_it_and_trains_nothing(tmp_path: Path) -> None:
    """From a configuration alone: there are no weights, and no store."""
    config_of("qwen3-4b").save_pretrained(tmp_path / "model")
    done = dry_run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("reference", "peak", "of 80", "4.02 x 10^9 parameters", "a rollout has 60% of limits.max_length"):
        assert said in done.stdout
    told = json.loads(dry_run(tmp_path, "--json").stdout)
    assert f"{told['peak'] / 1e9:.1f}" in next(line for line in done.stdout.splitlines() if line.startswith("peak"))
    assert f"{told['hours']:,.0f} h" in done.stdout
    assert {part["phase"] for part in told["parts"]} >= {"always", "update", "rollouts"}
    assert f"{told['parameters'] / 1e9:.2f}" == "4.02"
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    done = dry_run(tmp_path)
    assert done.returncode != 0
    assert "error: cannot load" in done.stderr


if __name__ == "__main__":  # the rows of docs/training.md
    for name, (recipe, told) in told_by_recipe().items():
        print(row_of(name, recipe, told))

"""From a recipe to a training: models, tokenizer, tasks and engine, the cold start, then StePPO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stepsearch_data.exports.template import Template
from stepsearch_data.exports.template_file import load_template
from stepsearch_data.pipeline.errors import ConfigError, TrainError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.trainer.data import load_examples, to_task
from stepsearch_data.trainer.episode import Limits, Referee
from stepsearch_data.trainer.recipe import Model, Recipe
from stepsearch_data.trainer.rollout import Retrieve
from stepsearch_data.trainer.runs import ABOUT, About
from stepsearch_data.trainer.sampler import end_tokens
from stepsearch_data.trainer.sft import cold_start
from stepsearch_data.trainer.trackers import tracker_options, tracking
from stepsearch_data.trainer.train import StePPO
from stepsearch_data.trainer.vllm import VllmSampler
from stepsearch_data.trainer.watch import together, watching


def launch(recipe: Recipe, retrieve: Retrieve, *, resume: bool, say: Callable[[str], None]) -> Path:
    """Train as the recipe says; the folder of the last checkpoint.

    Raises TrainError, ConfigError, StoreError, SearchError; what was reached is in the last checkpoint.
    """
    template = load_template(recipe.template)
    store = Store.open(recipe.store)
    examples = list(load_examples(store, "train"))
    held_out = [to_task(each, template) for each in islice(load_examples(store, "validation"), recipe.held_out)]
    if not examples:
        raise TrainError(f"no trajectory of {store.root} is for training", "stepsearch-data audit tells why")
    accelerator = Accelerator(
        mixed_precision="bf16" if recipe.bf16 else "no", **tracker_options(recipe.report_to, recipe.output)
    )
    checkpoints = sorted(recipe.output.glob("checkpoint-*"))
    if checkpoints and not resume:
        raise ConfigError(
            f"{recipe.output} holds a training already", "go on with --resume, or choose another --output"
        )
    policy, tokenizer = load_policy(recipe.model)
    cold = recipe.output / "cold-start"
    if recipe.sft and not checkpoints:
        start(policy, tokenizer, examples, template, recipe, cold, say)
    critic = load_critic(recipe, cold if recipe.sft else None)
    recipe.output.mkdir(parents=True, exist_ok=True)
    about = About(variant=recipe.rewards.name, seed=recipe.schedule.seed)
    (recipe.output / ABOUT).write_text(about.model_dump_json(), encoding="utf-8")
    (recipe.output / "recipe.json").write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
    with ExitStack() as stack:
        screen = stack.enter_context(watching(recipe.schedule.updates))
        tracker = stack.enter_context(tracking(accelerator, recipe.model_dump(mode="json"), recipe.output.name))
        sampler = None
        if recipe.vllm:
            temperature = recipe.schedule.temperature
            sampler = VllmSampler(policy, tokenizer, accelerator, recipe.vllm, recipe.limits, temperature)
        training = StePPO(
            policy,
            critic,
            tokenizer,
            make_referee(policy, tokenizer, template, recipe.limits),
            retrieve,
            [to_task(each, template) for each in examples],
            recipe.output,
            held_out=held_out,
            schedule=recipe.schedule,
            ppo=recipe.ppo,
            rewards=recipe.rewards.config(),
            accelerator=accelerator,
            sampler=sampler,
            watch=together(screen, tracker),
        )
        if resume and training.resume():
            say(f"goes on after update {training.done}")
        try:
            training.train()
        except torch.OutOfMemoryError as error:
            raise TrainError(
                "the device's memory does not hold this update",
                "lower ppo.micro (results stay the same), use lora_rank or gradient_checkpointing; then --resume",
            ) from error
        return training.save()


def start(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Any],
    template: Template,
    recipe: Recipe,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """The cold start, kept in a folder; loaded from it where it is there already."""
    assert recipe.sft is not None
    if (folder / "config.json").exists():
        policy.load_state_dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())
        say(f"cold start: taken from {folder}")
        return
    told = cold_start(policy, tokenizer, examples, template, folder.with_name(".sft"), recipe.sft, bf16=recipe.bf16)
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    say(f"cold start: {told['demonstrations']:,.0f} trajectories, {recipe.sft.steps} steps, loss {told['loss']:.3f}")


def load_policy(model: Model) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy in float32, with LoRA adapters where they are wanted, and its tokenizer. Raises TrainError."""
    try:
        options = {"revision": model.revision, "attn_implementation": model.attention, "dtype": torch.float32}
        policy = AutoModelForCausalLM.from_pretrained(model.path, **options)
        tokenizer = AutoTokenizer.from_pretrained(model.path, revision=model.revision)
    except (OSError, ValueError) as error:
        raise TrainError(f"cannot load the model {model.path}: {str(error).partition(chr(10))[0]}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.gradient_checkpointing:
        policy.gradient_checkpointing_enable()
    return _adapted(policy, model, "CAUSAL_LM"), tokenizer


def load_critic(recipe: Recipe, cold: Path | None) -> PreTrainedModel:
    """The critic: the trunk of the model that the policy starts from, and a value head of its own."""
    location = recipe.critic or (str(cold) if cold else recipe.model.path)
    torch.manual_seed(recipe.schedule.seed)
    critic = AutoModelForTokenClassification.from_pretrained(location, num_labels=1, dtype=torch.float32)
    if recipe.model.gradient_checkpointing:
        critic.gradient_checkpointing_enable()
    return _adapted(critic, recipe.model, "TOKEN_CLS")


def _adapted(model: PreTrainedModel, config: Model, task: str) -> PreTrainedModel:
    if not config.lora_rank:
        return model
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type=task)
    adapted: Any = get_peft_model(model, lora)
    return adapted


def make_referee(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: Template, limits: Limits
) -> Referee:
    """The rules of an episode for a model's tokenizer."""

    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return found

    def decode(tokens: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(tokens))
        return text

    return Referee(template, limits, encode, decode, end_tokens(policy, tokenizer))

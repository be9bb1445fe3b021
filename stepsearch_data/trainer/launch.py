"""Turn a recipe into a training: models, tokenizer, tasks and engine, the cold start, then StePPO."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from rich.console import Console
from transformers import TrainerCallback

from stepsearch_data.core.atomic import place
from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.files import TEMPLATES, load_template, text_of
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.architecture import check_architecture
from stepsearch_data.trainer.callbacks import Callback
from stepsearch_data.trainer.callbacks.console import console_callback
from stepsearch_data.trainer.callbacks.trackers import tracker_callback, tracker_options
from stepsearch_data.trainer.data import load_examples, subsample, to_task
from stepsearch_data.trainer.distributed import set_batch_sizes
from stepsearch_data.trainer.loading import CHECKPOINTING, load_critic, load_policy, make_search_env
from stepsearch_data.trainer.recipe import Recipe, read_recipe
from stepsearch_data.trainer.rollout import Retrieve
from stepsearch_data.trainer.run_folder import RECIPE, RUN_INFO, TEMPLATE, RunInfo
from stepsearch_data.trainer.steppo_trainer import StePPOTrainer

COLD_START = "cold-start"
_CHAT = {"chat_template", "chat_turns", "chat_template_kwargs"}
_SETTINGS = "settings.json"  # that a cold start was made with
_ZERO_3 = 3
_SHARDED = {DistributedType.FSDP, DistributedType.DEEPSPEED}
Say = Callable[[str], None]


def launch(
    recipe: Recipe,
    retrieve: Retrieve,
    *,
    resume: bool,
    say: Say,
    console: Console | None = None,
    callbacks: Sequence[Callback | TrainerCallback] = (),
) -> Path:
    """Train as the recipe says, shown on the console; return the folder of the last checkpoint.

    Under accelerate every process calls it.

    Raises TrainError, ConfigError, StoreError, SearchError; what was reached is in the last checkpoint.
    """
    recipe = recipe.anywhere()
    template = load_template(recipe.template)
    store = Store.open(recipe.store)
    allow = recipe.allow_templates
    examples = list(load_examples(store, "train", allow_templates=allow))
    held_out = subsample(load_examples(store, "validation", allow_templates=allow), recipe.held_out)
    if not examples:
        raise TrainError(f"no trajectory of {store.name} is for training", "stepsearch-data audit tells why")
    claim(recipe, resume=resume)
    accelerator = make_accelerator(recipe)
    check_settings(recipe, accelerator)
    main = accelerator.is_main_process
    tell: Say = say if main else lambda _: None
    if not held_out and recipe.held_out:
        without = ", so schedule.early_stop has no effect" if recipe.schedule.early_stop else ""
        tell(f"no trajectory of {store.name} is for validation: nothing is held out{without}")
    with ExitStack() as stack, explained_out_of_memory(recipe):
        start = cold_start(recipe, examples, template, accelerator, tell) if recipe.sft else recipe.model.path
        training = make_trainer(recipe, start, template, examples, held_out, retrieve, accelerator)
        if main:
            told = {"store": store.digest(), "held_out": len(held_out)}
            _write_info(recipe, template, RunInfo(variant=recipe.variant, seed=recipe.schedule.seed, **told))
        screen = stack.enter_context(console_callback(recipe.schedule.num_updates, console=console))
        shown = (recipe.model_dump(mode="json"), recipe.output.name)
        tracker = stack.enter_context(tracker_callback(accelerator, *shown, rollouts_every=recipe.rollouts_every))
        training.callbacks = (screen, tracker, *callbacks)
        if resume and training.resume():
            tell(f"goes on after update {training.updates_done}")
        training.train()
        saved = training.save()
        if training.stalled and training.updates_done < recipe.schedule.num_updates:
            tell(f"ended early: held-out exact match was not higher in {recipe.schedule.early_stop} evaluations")
        if best := training.best:
            tell(f"best held-out exact match {best.eval_em:.3f}: {recipe.output / best.checkpoint}")
    accelerator.state.destroy_process_group()  # a process that ends with an open one aborts now and then
    return saved


def _write_info(recipe: Recipe, template: Template, info: RunInfo) -> None:
    """Write into the run's folder what `plot`, `eval` and `publish` read.

    So a template of the user's own is written too: its file may change.
    """
    folder = recipe.output
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_INFO).write_text(info.model_dump_json(), encoding="utf-8")
    if recipe.template not in TEMPLATES:
        (folder / TEMPLATE).write_text(text_of(template), encoding="utf-8")
        recipe = recipe.model_copy(update={"template": TEMPLATE})
    (folder / RECIPE).write_text(recipe.model_dump_json(indent=1), encoding="utf-8")


def make_accelerator(recipe: Recipe) -> Accelerator:
    """Make what places models and reports to trackers. Raises ConfigError for what it refuses."""
    options = tracker_options(recipe.report_to, recipe.output)
    try:
        return Accelerator(mixed_precision="bf16" if recipe.bf16 else "no", **options)
    except ValueError as error:
        raise ConfigError(
            f"accelerate refuses bf16 = {str(recipe.bf16).lower()}: {error}",
            "trainings of one process have the same bf16: begin another process",
        ) from error


def check_settings(recipe: Recipe, accelerator: Accelerator) -> None:
    """Raise ConfigError or TrainError for settings that do not go together, before anything is loaded."""
    _check_sharding(recipe, accelerator)
    schedule, vllm = recipe.schedule, recipe.vllm
    set_batch_sizes(accelerator, schedule.rollout_batch_size, recipe.ppo)
    if vllm and vllm.mode == "colocate" and schedule.overlap:
        raise ConfigError(
            'schedule.overlap does not run with vllm.mode = "colocate", where vLLM has the GPU to itself',
            'vllm.mode = "server" on another GPU, or leave schedule.overlap out',
        )
    if recipe.critic and not recipe.ppo.has_critic:
        raise ConfigError("critic has no effect with ppo.group_size, which trains none", "leave out one of both")
    if schedule.early_stop and not (schedule.eval_steps and recipe.held_out):
        raise ConfigError(
            "schedule.early_stop has no effect without evaluations",
            "set schedule.eval_steps and held_out, or leave schedule.early_stop out",
        )


def make_trainer(
    recipe: Recipe,
    start: str,
    template: Template,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    retrieve: Retrieve,
    accelerator: Accelerator,
) -> StePPOTrainer:
    """Make the trainer of a recipe, with models from a folder or the Hub. Raises TrainError, ConfigError."""
    policy, tokenizer = load_policy(start, recipe)
    env = make_search_env(policy, tokenizer, template, recipe.limits, recipe.model.chat)
    sampler = None
    if recipe.vllm:
        from stepsearch_data.trainer.vllm import VllmSampler

        temperature = recipe.schedule.temperature
        limits = recipe.limits
        sampler = VllmSampler(policy, tokenizer, accelerator, recipe.vllm, limits, temperature, env.form.stops)
    return StePPOTrainer(
        policy,
        load_critic(recipe.critic or start, recipe) if recipe.ppo.has_critic else None,
        tokenizer,
        env,
        retrieve,
        [to_task(each, template) for each in examples],
        recipe.output,
        held_out=[to_task(each, template) for each in held_out],
        schedule=recipe.schedule,
        ppo=recipe.ppo,
        rewards=recipe.rewards.config(),
        step_until=recipe.rewards.step_until,
        answer_gain=recipe.rewards.answer_gain,
        accelerator=accelerator,
        sampler=sampler,
    )


def kept_cold_start(recipe: Recipe) -> Path | None:
    """Return the folder of the cold start, if it is there. Raises ConfigError where it was made with other settings."""
    folder = recipe.output / COLD_START
    if not folder.exists():
        return None
    if (folder / _SETTINGS).read_text(encoding="utf-8") != _settings(recipe):
        raise ConfigError(f"{folder} was made with another [sft]", "choose another --output, or remove that folder")
    return folder


def _settings(recipe: Recipe) -> str:
    """Return what decides a cold start."""
    return recipe.model_dump_json(
        include={"sft": True, "template": True, "model": _CHAT}, exclude={"sft": {"micro_batch_size"}}
    )


def cold_start(
    recipe: Recipe, examples: Sequence[Example], template: Template, accelerator: Accelerator, say: Say
) -> str:
    """Return the folder of a whole model, fine-tuned on gold trajectories; train it if it is not there.

    Policy, critic and reference all start from it, so LoRA adapters are merged: the KL is to the cold start, not to
    the model before it. Several processes share the work. Raises ConfigError where they share the weights too, and for
    a cold start that was made with other settings.
    """
    if kept := kept_cold_start(recipe):
        say(f"cold start: taken from {kept}")
        return str(kept)
    folder = recipe.output / COLD_START
    if accelerator.distributed_type in _SHARDED:
        raise ConfigError(
            "a cold start does not run with sharded weights",
            f"make it without accelerate and with --set schedule.num_updates=0; "
            f"then leave [sft] out and name its folder {COLD_START} as model.path",
        )
    from stepsearch_data.trainer.sft import cold_start as fine_tune

    assert recipe.sft is not None
    whole = recipe.model_copy(update={"bf16": False})  # merged in float32, in whatever it is trained
    policy, tokenizer = load_policy(recipe.model.path, whole)
    with accelerator.autocast():
        check_architecture(policy.to(accelerator.device), tokenizer)
    part = folder.with_name(f".{COLD_START}")
    chat = recipe.model.chat
    saving = {"bf16": recipe.bf16, CHECKPOINTING: recipe.model.gradient_checkpointing}
    told = fine_tune(policy, tokenizer, examples, template, part, recipe.sft, chat=chat, say=say, **saving)
    if accelerator.is_main_process:
        (policy.merge_and_unload() if recipe.model.lora_rank else policy).save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / _SETTINGS).write_text(_settings(recipe), encoding="utf-8")
        place(part, folder)
    accelerator.wait_for_everyone()
    say(
        f"cold start: {told['demonstrations']:,.0f} trajectories, {recipe.sft.max_steps} steps, loss {told['loss']:.3f}"
    )
    return str(folder)


def _check_sharding(recipe: Recipe, accelerator: Accelerator) -> None:
    """Raise ConfigError for what sharded weights do not allow."""
    kind, state = accelerator.distributed_type, accelerator.state
    if kind is DistributedType.DEEPSPEED and state.deepspeed_plugin.zero_stage == _ZERO_3:
        raise ConfigError("DeepSpeed ZeRO-3 does not run", "recipes/accelerate/fsdp2.yaml, or zero2.yaml where it fits")
    if kind is DistributedType.MEGATRON_LM or (kind is DistributedType.FSDP and state.fsdp_plugin.fsdp_version == 1):
        raise ConfigError("Megatron-LM and the first FSDP do not run", "recipes/accelerate/fsdp2.yaml")
    if kind is DistributedType.FSDP and recipe.model.lora_rank:
        raise ConfigError("LoRA does not run with FSDP", "adapters are small: recipes/accelerate/ddp.yaml")


def claim(recipe: Recipe, *, resume: bool) -> None:
    """Raise ConfigError for an output that holds a training already.

    With `resume`, only for one that another version began, or that has a critic where the recipe has none.
    """
    output = recipe.output
    begun = output.is_dir() and any((output / COLD_START).glob("*")) | any(output.glob("checkpoint-*"))
    if begun and not resume:
        raise ConfigError(f"{output} holds a training already", "go on with --resume, or choose another --output")
    if begun and (output / RECIPE).is_file():
        before = read_recipe(output / RECIPE, "go on with the version that began it, or choose another --output")
        if before.ppo.has_critic != recipe.ppo.has_critic:
            has = "a" if before.ppo.has_critic else "no"
            raise ConfigError(
                f"{output} holds a training with {has} critic, by ppo.group_size = {before.ppo.group_size}",
                "go on with the same, or choose another --output",
            )


@contextmanager
def explained_out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Raise TrainError, which says what helps, where the device's memory is too small."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainError(
            "the device's memory does not hold this training",
            f"lower {recipe.ppo.cut_by} or sft.micro_batch_size (results stay the same), use model.lora_rank or "
            "model.gradient_checkpointing; then --resume",
        ) from error

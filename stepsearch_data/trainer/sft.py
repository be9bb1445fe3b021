"""Cold start: supervised fine-tuning on gold trajectories, by TRL's trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import constants
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from stepsearch_data.core.errors import TrainError
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.chat import turn_end
from stepsearch_data.trainer.config import CHAT, Chat
from stepsearch_data.trainer.data import demonstrate
from stepsearch_data.trainer.loading import CHECKPOINTING, encoders, make_form
from stepsearch_data.trainer.recipe import SFT

constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL's trainers would tell the Hub that they are used


def cold_start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    template: Template,
    output: Path,
    config: SFT,
    *,
    chat: Chat = CHAT,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> dict[str, float]:
    """Fine-tune the model in place on what the policy writes in these trajectories, not on what the engine writes.

    `say` is told the loss along the way; `options` are further ones of `trl.SFTConfig`.
    Returns the mean loss, and how many trajectories were too long. Raises TrainError where none is left.
    """
    encode, _ = encoders(tokenizer, chat)
    form = make_form(tokenizer, template, chat)
    end = (turn_end(tokenizer) if chat.template else None) or tokenizer.eos_token_id
    rows = [demonstrate(each, template, form, encode, end) for each in examples]
    kept = [row for row in rows if len(row["input_ids"]) <= config.max_length]
    if not kept:
        raise TrainError(
            f"no trajectory has at most {config.max_length} tokens", "raise sft.max_length, or build a store"
        )
    arguments = SFTConfig(
        output_dir=str(output),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.micro_batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup_ratio * config.max_steps),
        lr_scheduler_type="polynomial",  # of power 1: a line
        lr_scheduler_kwargs={"lr_end": config.learning_rate / 10},
        max_length=None,
        seed=config.seed,
        save_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(),
        **{
            "report_to": "none",
            "logging_steps": 50,
            "disable_tqdm": True,
            CHECKPOINTING: False,
            "bf16": False,  # TRL turns it on, which costs a processor time and a small model digits
            **options,
        },
    )
    steps, left = divmod(config.batch_size, config.micro_batch_size * arguments.world_size)
    if left or not steps:
        raise TrainError(
            f"a batch of {config.batch_size} demonstrations cannot be cut into micro batches of "
            f"{config.micro_batch_size} on {arguments.world_size} processes",
            "choose sft.batch_size as a multiple of sft.micro_batch_size times the processes",
        )
    arguments.gradient_accumulation_steps = steps
    trainer = SFTTrainer(model, args=arguments, train_dataset=Dataset.from_list(kept), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is for data
    if say:
        trainer.add_callback(_LossLogger(say))
    loss = trainer.train().training_loss
    return {"loss": loss, "demonstrations": len(kept), "too_long": len(rows) - len(kept)}


class _LossLogger(TrainerCallback):
    """Says the loss of each logging step."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """See `TrainerCallback`."""
        if logs and "loss" in logs:
            self._say(f"cold start: step {state.global_step} of {state.max_steps}, loss {float(logs['loss']):.3f}")

"""Cold start: supervised fine-tuning on gold trajectories, by TRL's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from stepsearch_data.exports.examples import Example
from stepsearch_data.exports.template import Template
from stepsearch_data.pipeline.errors import TrainError
from stepsearch_data.trainer.data import demonstration, encode_demonstration
from stepsearch_data.trainer.settings import SFT


def cold_start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    template: Template,
    output: Path,
    config: SFT,
    **options: Any,
) -> dict[str, float]:
    """Fine-tune the model in place on what the policy writes in these trajectories, not on what the engine writes.

    `options` are further ones of `trl.SFTConfig`. The mean loss, and how many trajectories were too long. Raises
    TrainError where none is left.
    """

    def encode(text: str) -> list[int]:
        tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return tokens

    rows = [encode_demonstration(demonstration(each, template), encode, tokenizer.eos_token_id) for each in examples]
    kept = [row for row in rows if len(row["input_ids"]) <= config.longest]
    if not kept:
        raise TrainError(f"no trajectory has at most {config.longest} tokens", "raise sft.longest, or build a store")
    arguments = SFTConfig(
        output_dir=str(output),
        max_steps=config.steps,
        per_device_train_batch_size=config.micro,
        gradient_accumulation_steps=max(1, config.batch // config.micro),
        learning_rate=config.lr,
        warmup_steps=round(config.warmup * config.steps),
        lr_scheduler_type="linear",
        max_length=None,
        seed=config.seed,
        save_strategy="no",
        **{"report_to": "none", "logging_steps": 50, "disable_tqdm": True, **options},
    )
    trainer = SFTTrainer(model, args=arguments, train_dataset=Dataset.from_list(kept), processing_class=tokenizer)
    loss = trainer.train().training_loss
    return {"loss": loss, "demonstrations": len(kept), "too_long": len(rows) - len(kept)}

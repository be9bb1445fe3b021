"""A training's recipe: a TOML file of sections, each a dataclass or a model that explains itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.toml import parse_value, read_toml
from stepsearch_data.core.validation import in_words
from stepsearch_data.rewards import PRESETS, Preset, RewardConfig, without
from stepsearch_data.templates.files import TEMPLATES
from stepsearch_data.trainer.config import Amount, Chat, Count, Limits, Natural, Positive, PPOConfig, Schedule, Share

MAIN = "main"  # the revision of a model on the Hub where none is named
Part = Literal["key", "gain", "penalty", "step"]


@dataclass(frozen=True)
class SFT:
    """How the cold start is trained."""

    max_steps: Natural = 300
    batch_size: Count = 16
    micro_batch_size: Count = 8
    learning_rate: Amount = 1e-5
    warmup_ratio: Share = 0.05
    """Share of the steps in which the learning rate rises; it then falls in a line to a tenth."""
    max_length: Count = 4096
    """Tokens of a demonstration; longer ones are left out."""
    seed: Natural = 0


class Section(BaseModel):
    """A section whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Section):
    """Which model is trained, and in what form."""

    path: str = Field(description="folder of a model, or its name on the Hub")
    revision: str = Field(default=MAIN, description="revision on the Hub")
    attn_implementation: str = Field(
        default="sdpa", description="attention implementation: sdpa, flash_attention_2, eager"
    )
    chat_template: bool = Field(
        default=True, description="prompts are a user's message, where the tokenizer has a chat template"
    )
    chat_turns: bool = Field(
        default=False, description="observations are the user's messages; else they are part of the policy's"
    )
    chat_template_kwargs: dict[str, str | bool | int | float] = Field(
        default={}, description="variables of the chat template, such as enable_thinking or date_string"
    )
    lora_rank: int = Field(default=0, ge=0, le=65_536, description="rank of LoRA adapters; 0 trains all weights")
    lora_alpha: int = Field(default=32, ge=0, le=1_000_000, description="scale of LoRA adapters")
    gradient_checkpointing: bool = Field(default=False, description="less memory for a third more time")

    @property
    def chat(self) -> Chat:
        """Return how prompts become conversations."""
        return Chat(self.chat_template, self.chat_turns, self.chat_template_kwargs)


class Rewards(Section):
    """Whose rewards, without which part (the paper's ablations), and what goes beyond the paper."""

    preset: Preset = Field(
        default="paper",
        description="paper, reference (code), outcome: r_answer alone, ordinary PPO, gain+key: paper without penalty",
    )
    without: list[Part] = Field(default=[], description="parts that are left out: key, gain, penalty, step")
    repeated_queries_only: bool = Field(
        default=False, description="penalise documents that come again only where the query was asked before too"
    )
    answer_gain: Amount = Field(
        default=0.0, description="weight of the information gain of the policy's own answer, at every search"
    )
    step_until: Natural = Field(
        default=0, description="updates in which step rewards fall to 0, in a line; 0 keeps them to the end"
    )

    def config(self) -> RewardConfig:
        """Return the rewards' configuration, before the first update."""
        config = replace(PRESETS[self.preset], repeated_queries_only=self.repeated_queries_only)
        for part in self.without:
            config = without(config, part)
        return config

    @property
    def name(self) -> str:
        """Name them in tables and plots."""
        beyond = {
            "repeats-only": self.repeated_queries_only,
            f"answer-gain-{self.answer_gain:g}": self.answer_gain,
            f"step-until-{self.step_until}": self.step_until,
        }
        parts = (f"no-{part}" for part in self.without)
        return "-".join([self.preset, *parts, *(name for name, chosen in beyond.items() if chosen)])


class Vllm(Section):
    """Rollouts by vLLM; without this section by `transformers`."""

    mode: Literal["colocate", "server"] = Field(default="colocate", description="in this process, or by `vllm serve`")
    server_base_url: str | None = Field(default=None, description="of the server")
    gpu_memory_utilization: float = Field(
        default=0.3, gt=0, lt=1, description="share of the GPU's memory that it takes (colocate)"
    )
    enable_sleep_mode: bool = Field(
        default=True, description="gives its memory back while weights are updated (colocate)"
    )


class Hardware(Section):
    """What `--dry-run` reckons with: GPUs, and what is reached of their speed. A training does not read it."""

    gpus: int = Field(default=1, ge=1, le=1_000_000, description="how many")
    sharding: Literal["ddp", "zero2", "fsdp2"] = Field(
        default="ddp", description="what is cut over them: nothing, or as recipes/accelerate/zero2.yaml, fsdp2.yaml"
    )
    memory_gb: Positive = Field(default=80, description="of each, in 10^9 bytes")
    tflops: Positive = Field(
        default=400, description="10^12 operations a second that each reaches (an H100: 40 % of its 989)"
    )
    tb_s: Positive = Field(default=2.0, description="10^12 bytes of its memory that each reads in a second")


_DATACLASSES = {"sft": SFT, "schedule": Schedule, "ppo": PPOConfig, "limits": Limits}


class Recipe(Section):
    """All that decides a training, and where its result goes."""

    store: Path = Field(default=Path("store"), description="the store that questions come from")
    output: Path = Field(default=Path("runs/steppo"), description="folder of metrics and checkpoints")
    template: str = Field(default="musique", description="prompt template: musique, paper, or a file")
    held_out: int = Field(
        default=200, ge=0, le=1_000_000_000, description="questions that are asked, drawn from the validation split"
    )
    allow_templates: bool = Field(default=False, description="take questions by templates, which are demonstrations")
    bf16: bool = Field(default=False, description="mixed precision, weights stay float32 (needs a GPU that has it)")
    report_to: str = Field(default="none", description="tensorboard, wandb, trackio or none")
    rollouts_every: int = Field(
        default=10,
        ge=0,
        le=1_000_000_000,
        description="updates between tables of rollouts in that tracker, which then has texts of the store; 0: none",
    )
    model: Model
    critic: str | None = Field(default=None, description="model that the critic starts from; the policy's by default")
    sft: SFT | None = Field(default=None, description="cold start on gold trajectories before PPO; none by default")
    schedule: Schedule = Schedule()
    ppo: PPOConfig = PPOConfig()
    limits: Limits = Limits()
    rewards: Rewards = Rewards()
    vllm: Vllm | None = None
    hardware: Hardware = Hardware()

    @property
    def variant(self) -> str:
        """Name what is learnt from, and how it is credited, in tables and plots."""
        credit = {"turn-level": self.ppo.turn_level_gae, f"group-{self.ppo.group_size}": not self.ppo.has_critic}
        return "-".join([self.rewards.name, *(name for name, chosen in credit.items() if chosen)])

    def anywhere(self, folder: Path = Path()) -> Recipe:
        """Return the recipe with absolute paths, for reading from any folder; relative ones are seen from `folder`."""
        return Recipe.model_validate(_seen_from(folder, self.model_dump(mode="json")))

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        """Refuse unknown names in dataclasses, which ignore them."""
        known = {name: [each.name for each in fields(kind)] for name, kind in _DATACLASSES.items()}
        for section, given in data.items():
            for key in sorted(given) if isinstance(given, dict) else ():
                if key not in known.get(section, [key]):
                    raise ValueError(f"{section}.{key} is unknown; known: {', '.join(known[section])}")
        return data


def read_recipe(file: Path, hint: str) -> Recipe:
    """Read the recipe in a run's folder. Raises ConfigError for one of another version."""
    try:
        return Recipe.model_validate_json(file.read_bytes()).anywhere(file.parent)
    except ValidationError as error:
        raise ConfigError(f"{file} is not a recipe of this version: {in_words(error)}", hint) from error


def load_recipe(file: Path | None, settings: Iterable[str] = ()) -> Recipe:
    """Load the recipe of a file, with `section.key=value` settings over it.

    Relative paths are taken from its folder. Raises ConfigError, naming every key that is unknown or wrong.
    """
    data = _seen_from(file.parent, read_toml(file, "recipe", "recipes/ has some")) if file else {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE", "for example --set schedule.num_updates=100")
        *sections, name = key.strip().split(".")
        inner = data
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {setting}: {section} is not a section")
        inner[name] = parse_value(key.strip(), value)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{file or 'the recipe'}: {in_words(error)}") from None


def _seen_from(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Make the paths in a recipe that are relative to a folder absolute. The name of a model on the Hub stays."""
    for name in ("store", "output", "template"):
        if name in data and str(data[name]) not in TEMPLATES:
            data[name] = str((folder / str(data[name])).absolute())
    model = data.get("model")
    for section, name in ((data, "critic"), (model if isinstance(model, dict) else {}, "path")):
        if section.get(name) and (folder / str(section[name])).is_dir():
            section[name] = str((folder / str(section[name])).absolute())
    return data

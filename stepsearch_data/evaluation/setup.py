"""Turn the options of an evaluation into its policy, questions and search engine."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.environments import EnvironmentConfig
from stepsearch_data.evaluation.measure import Row
from stepsearch_data.evaluation.policy import Policy
from stepsearch_data.evaluation.questions import Questions, questions_of_files, questions_of_store
from stepsearch_data.evaluation.rollout_file import ANOTHER, REPLIES
from stepsearch_data.evaluation.weights import Weights, find_weights
from stepsearch_data.indexes import Choice
from stepsearch_data.pipeline.config import RunConfig
from stepsearch_data.pipeline.store import Store
from stepsearch_data.remote.secrets import show_url
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.config import Chat, Limits


@dataclass(frozen=True)
class Options:
    """What is evaluated, on what, and how: a checkpoint, or the model `llm` of an endpoint.

    A store, a template and the `lengths` (fields of `Limits`) that are not named are those that a checkpoint was
    trained with. Without a `split` all of the store's are asked. A folder that `grows` takes any questions, else those
    of one evaluation. `tools` are what a model may call beside the search.
    """

    checkpoint: str | None = None
    best: bool = False
    llm: str | None = None
    raw: bool = False
    questions: tuple[str, ...] = ()
    split: str | None = "validation"
    choice: Choice = field(default_factory=Choice)
    template: str | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)
    limit: int | None = None
    batch: int | None = None
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    output: Path | None = None
    grows: bool = False
    another: str = ANOTHER
    """The hint where the folder holds something else."""
    tools: tuple[str, ...] = ()
    reading: Mapping[str, int] = field(default_factory=dict)
    """Fields of `EnvironmentConfig` that count where there are `tools`."""


@dataclass(frozen=True)
class Setup:
    """What the options come to."""

    model: str
    template: Template
    limits: Limits
    choice: Choice
    chat: Chat
    weights: Weights | None
    """Of a model that is played in this process; None for a server's."""
    calling: EnvironmentConfig | None = None
    """How a server's policy that calls tools is played; None for one that writes tags, and for a checkpoint."""

    @property
    def most_turns(self) -> int:
        """Return how many turns a rollout has at most."""
        return self.calling.most_turns if self.calling else self.limits.max_turns + 1


def set_up(options: Options) -> Setup:
    """Choose each setting: what is named, or was trained with, or is the default, in this order.

    Raises ConfigError.
    """
    if bool(options.checkpoint) == bool(options.llm):
        raise ConfigError("expected one policy", "name a CHECKPOINT or --llm MODEL, not both")
    if options.best and options.llm:
        raise ConfigError("--best chooses a checkpoint of a run, and --llm is another policy", "leave one out")
    if options.samples > 1 and not options.temperature:
        raise ConfigError(f"{options.samples} samples at temperature 0 are one and the same", "--temperature 1")
    if options.output and options.output.exists() and not options.output.is_dir():
        raise ConfigError(f"{options.output} is not a folder", "name another with --output")
    weights = None if options.llm else find_weights(options.checkpoint or "", best=options.best)
    recipe = weights.recipe if weights else None
    limits = replace(recipe.limits if recipe else Limits(), **options.lengths)
    choice = replace(options.choice, store=options.choice.store or (weights.store if weights else None))
    trained = weights.template if weights and not options.template else None
    named = options.template or trained or ("tools" if options.tools else "musique")
    calling = _calling(options, named, limits)
    template = calling.wording if calling else load_template(named)
    chat = recipe.model.chat if recipe else Chat()
    return Setup(weights.name if weights else options.llm or "", template, limits, choice, chat, weights, calling)


def _calling(options: Options, template: str, limits: Limits) -> EnvironmentConfig | None:
    """Return how a server's policy that calls tools is played. Raises ConfigError where tools cannot be called."""
    if not options.tools and options.reading:
        raise ConfigError("there is nothing to open", "--tools open,find")
    if options.tools and options.checkpoint:
        raise ConfigError("a checkpoint calls the search alone, as in training", "serve it, and name it with --llm")
    if options.checkpoint:
        return None
    if not load_template(template).tool:
        if options.tools:
            raise ConfigError(f"the template {template} writes tags, which call no tools", "--template tools")
        return None
    if options.raw:
        raise ConfigError("tools are called in a chat, not in one text", "leave out --raw")
    lengths = {"max_turns": limits.max_turns, "topk": limits.topk}
    how: dict[str, Any] = {"template": template, "tools": options.tools, **lengths, **options.reading}
    config = EnvironmentConfig(**how)
    _ = config.functions
    return config


def open_policy(options: Options, setup: Setup, config: RunConfig, stack: ExitStack) -> Policy:
    """Load the policy, or connect to it until `stack` closes.

    Raises ConfigError, TrainError.
    """
    how: Any = {"temperature": options.temperature, "seed": options.seed}
    if options.llm:
        from stepsearch_data.evaluation.calls import CallingPolicy
        from stepsearch_data.evaluation.endpoint import ServedPolicy

        kept = options.output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        llm = config.llm.model_copy(update={"replay": kept / REPLIES})  # another model may have this name later
        batch = options.batch or 4 * llm.max_concurrency
        policy: ServedPolicy | CallingPolicy
        try:
            if setup.calling:
                policy = CallingPolicy(llm, setup.model, setup.calling, setup.limits, batch=batch, **how)
            else:
                policy = ServedPolicy(
                    llm, setup.model, setup.template, setup.limits, batch=batch, raw=options.raw, **how
                )
        except StoreError as error:  # it names a setting, and here the folder decides where replies are kept
            raise StoreError(error.message, "keep them elsewhere: --output DIR") from error
        stack.callback(policy.close)
        return policy
    try:
        from stepsearch_data.evaluation.checkpoint import LocalPolicy
    except ImportError as error:
        raise ConfigError(
            f"evaluating a checkpoint needs {error.name}",
            "pip install 'stepsearch-data[train]'; an endpoint, with --llm, needs nothing",
        ) from error
    assert setup.weights
    return LocalPolicy(setup.weights, setup.template, setup.limits, chat=setup.chat, batch=options.batch or 64, **how)


def questions_of(options: Options, setup: Setup, config: RunConfig) -> Questions:
    """Return the questions that are asked. Raises StoreError, SourceError, ConfigError."""
    if options.questions:
        aliases: Path | None = config.stages["load"].id_aliases  # type: ignore[attr-defined]  # of LoadConfig
        return questions_of_files(options.questions, setup.template, options.limit, aliases)
    store = Store.open(setup.choice.store or config.store)
    return questions_of_store(store, options.split, setup.template, options.limit)


def settings_of(options: Options, setup: Setup, config: RunConfig, questions: Questions, engine: Row) -> Row:
    """Collect all that decides the rollouts. The questions of a store are compared one by one instead.

    Of a folder that grows, it is not said which they are.
    """
    policy: Row = {"model": setup.model}
    if setup.weights is None:
        policy |= {"base_url": show_url(config.llm.base_url), "raw": options.raw}
    elif setup.weights.commit:
        policy |= {"commit": setup.weights.commit}
    else:
        policy |= {"stamp": max(path.stat().st_mtime_ns for path in Path(setup.model).iterdir())}
    wording = hashlib.sha256(orjson.dumps(setup.template.parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    return {
        **policy,
        **({} if options.grows else {"questions": questions.name}),
        **({"digest": questions.digest} if questions.digest else {}),
        "engine": engine,
        "template": f"{setup.template.name} {wording}",
        "limits": vars(setup.limits),
        **_reading_of(setup),
        "temperature": options.temperature,
        "seed": options.seed,
        **({"samples": options.samples} if options.samples > 1 else {}),
    }


def _reading_of(setup: Setup) -> Row:
    """Return what decides how documents are opened, where they can be."""
    config = setup.calling
    if not (config and config.tools):
        return {}
    names = ("page_length", "max_reads", "calls_per_turn")
    return {"tools": list(config.tools), **{name: getattr(config, name) for name in names}}

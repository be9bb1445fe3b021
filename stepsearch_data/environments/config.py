"""What is played: a store, how it is searched, how turns are worded and rewarded; and its questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import TypeAdapter, ValidationError

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.validation import in_words
from stepsearch_data.pipeline.store import Store
from stepsearch_data.rewards import Preset, RewardConfig
from stepsearch_data.schemas.rollouts import GoldRow
from stepsearch_data.scoring.scorer import configure
from stepsearch_data.search.reading import PAGE_LENGTH, PageLength
from stepsearch_data.sources.record import Record, validate
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.config import Count, Limits, Natural
from stepsearch_data.trainer.data import load_examples, load_tag_template, to_task
from stepsearch_data.trainer.search_env import Task

ReadingTool = Literal["open", "find"]


@dataclass(frozen=True)
class EnvironmentConfig:
    """A store to play in. Small to pickle, as trainers do: questions and index are read when they are first needed."""

    store: str = "store"
    engine: str = ""
    """`NAME` or `NAME=URL`, as `--engine` takes it; by default the store's own index."""
    template: str = "tools"
    """How prompts and documents are worded: tools, or with tags musique or paper, or a file of yours."""
    preset: Preset = "paper"
    """Of the rewards: paper, reference, gain+key or outcome."""
    switches: tuple[str, ...] = ()
    """Parts of the preset that are set, each as NAME=VALUE (docs/rewards.md)."""
    max_turns: Natural = 5
    """Searches of a rollout."""
    topk: Count = 3
    """Documents of a search."""
    max_length: Count = 4096
    """Tokens of a rollout in tags; a token is taken as four characters where there is no tokenizer."""
    max_new_tokens: Count = 500
    """Tokens that the policy writes in a turn of a rollout in tags, where it is sampled here."""
    max_obs_length: Count = 600
    """Tokens that the engine's answer is cut to in a rollout in tags."""
    allow_templates: bool = False
    """Whether questions by templates, which are demonstrations, are played."""
    settings: tuple[str, ...] = ()
    """Of engines, as `--set` takes them: `engines.http.timeout=60`."""
    tools: tuple[ReadingTool, ...] = ()
    """What a policy may call beside the search: open, find. What follows counts only where there are some."""
    page_length: PageLength = PAGE_LENGTH
    """Characters of a page of a document. A search shows first pages."""
    max_reads: Natural = 10
    """Calls of `open` and `find` of a rollout."""
    calls_per_turn: Count = 1
    """Calls of a turn that are run. Others are answered with a warning."""

    def __post_init__(self) -> None:
        """Make tuples of lists: a config is a key."""
        for name in ("switches", "settings", "tools"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Make a config of what a file of settings says. Raises ConfigError for what is not known or mistyped."""
        known = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(f"an environment has no setting {unknown[0]}", f"it has {', '.join(known)}")
        try:
            made = TypeAdapter(cls).validate_python(options)
        except ValidationError as error:
            raise ConfigError(f"an environment's settings: {in_words(error)}") from None
        _ = made.rewards
        return made

    @cached_property
    def rewards(self) -> RewardConfig:
        """Return how rollouts are scored. Raises ConfigError."""
        return configure(self.preset, self.switches)

    @property
    def wording(self) -> Template:
        """Return the template. Raises ConfigError."""
        return _wording(self.template)

    @property
    def tag_wording(self) -> Template:
        """Return the template of a policy that writes tags. Raises ConfigError where it has to call tools."""
        if self.tools:
            named = " and ".join(self.tools)
            raise ConfigError(f"there are no tags for {named}", 'they are called as tools: template="tools"')
        return load_tag_template(self.template)

    @property
    def functions(self) -> list[dict[str, Any]]:
        """Return the definitions of what a policy may call. Raises ConfigError for tools that the template lacks."""
        wording, known = self.wording, get_args(ReadingTool)
        if wording.tool is None:
            raise ConfigError(f"the template {self.template} has no tool", "tools, or one of yours with a part tool")
        for name in self.tools:
            if self.tools.count(name) > 1:
                raise ConfigError(f"the tool {name} is named twice", f"name each once: {', '.join(known)}")
            if name not in known:
                raise ConfigError(f"there is no tool {name}", f"known: {', '.join(known)}")
            if name not in wording.parts:
                raise ConfigError(f"the template {self.template} has no part {name}", "copy that of the template tools")
        if self.tools and "${title}" not in wording.parts["document"]:
            raise ConfigError(f"the template {self.template} shows no ${{title}}, beside which ids stand", "add it")
        return wording.functions(self.tools)

    @property
    def most_turns(self) -> int:
        """Return how many messages a policy writes at most that calls tools: each call alone, and the answer."""
        return self.max_turns + (self.max_reads if self.tools else 0) + 1

    @property
    def limits(self) -> Limits:
        """Return how long a rollout in tags may be."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})

    def tasks(self, split: str | None = None) -> dict[str, Task]:
        """Return the questions of a split, or of all, by id: complete trajectories that passed the gates.

        They are read once in a process. Raises StoreError, ConfigError.
        """
        return _tasks(self.store, self.template, split, allow_templates=self.allow_templates)

    def task(self, question_id: str) -> Task:
        """Return a question. Raises ConfigError where the store has none of this id."""
        tasks = self.tasks()
        if question_id not in tasks:
            example = next(iter(tasks), "")
            raise ConfigError(f"{self.store} has no question {question_id!r}", f"one that it has is {example}")
        return tasks[question_id]


_wording = cache(load_template)


@cache
def _tasks(store: str, template: str, split: str | None, *, allow_templates: bool) -> dict[str, Task]:
    wording = _wording(template)
    examples = load_examples(Store.open(Path(store)), split, allow_templates=allow_templates)
    return {example.question_id: to_task(example, wording) for example in examples}


def task_of(row: Mapping[str, Any]) -> Task:
    """Make a task of a training row: of our exports, or of any that `score` reads.

    Raises RowRejected for a row without answers.
    """
    gold = validate(GoldRow, Record(0, dict(row)))
    return Task(
        id=gold.id or "",
        question=str(row.get("question") or ""),
        prompt="",
        answers=tuple(gold.target),
        search_keys=gold.search_keys,
        support_docs=tuple(Paragraph("", paragraph.paragraph_text) for paragraph in gold.support_docs),
        source=gold.data_source or "",
    )

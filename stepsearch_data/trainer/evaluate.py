"""Evaluation: a policy answers questions with a search engine, and is measured by the official scripts."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import orjson
from pydantic import ValidationError

from stepsearch_data.exports.template import Template
from stepsearch_data.exports.template_file import load_template
from stepsearch_data.indexes import Choice, Load, opened
from stepsearch_data.pipeline.config import RunConfig
from stepsearch_data.pipeline.errors import ConfigError
from stepsearch_data.pipeline.progress import Meter, Reporter
from stepsearch_data.pipeline.search import Service
from stepsearch_data.pipeline.search.index import open_engine
from stepsearch_data.pipeline.store import Store
from stepsearch_data.trainer.episode import Limits, Task
from stepsearch_data.trainer.measure import Played, Row, Tally, row_of
from stepsearch_data.trainer.questions import Asked, Files, Parsers, Questions, SplitOfStore
from stepsearch_data.trainer.recipe import Recipe
from stepsearch_data.trainer.retrieval import retriever
from stepsearch_data.trainer.rollout import Retrieve
from stepsearch_data.trainer.rollout_file import REPLIES, RolloutFolder

_MODEL_FILES = ("config.json", "adapter_config.json")
_RECIPE = "recipe.json"


class Policy(Protocol):
    """Plays episodes, `batch` of them at a time."""

    batch: int

    def play(self, tasks: Sequence[Task], retrieve: Retrieve) -> list[Played]:
        """One episode a task, in their order. Raises TrainError, ProviderError, BudgetError, SearchError."""

    def describe(self) -> str:
        """How it goes, for a progress line."""

    def usage(self) -> dict[str, float]:
        """What was used so far."""

    def close(self) -> None:
        """Let go of what it holds."""


@dataclass(frozen=True)
class Options:
    """What is evaluated, on what, and how: a checkpoint, or the model `llm` of an endpoint.

    A store, a template and the `lengths` (fields of `Limits`) that are not named are those that a checkpoint was
    trained with.
    """

    checkpoint: str | None = None
    llm: str | None = None
    raw: bool = False
    questions: tuple[str, ...] = ()
    split: str = "validation"
    choice: Choice = field(default_factory=Choice)
    template: str | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)
    limit: int | None = None
    batch: int | None = None
    temperature: float = 0.0
    seed: int = 0
    output: Path | None = None


@dataclass(frozen=True)
class Setup:
    """What the options come to."""

    model: str
    template: Template
    limits: Limits
    choice: Choice


@dataclass
class Report:
    """What an evaluation found. `refused` counts rollouts that a server refused, by reason."""

    settings: Row
    measures: dict[str, dict[str, Row]] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    rejects: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """What is wrong with the policy or the engine as a whole, in words."""
        whole = self.measures["all"]["all"]
        ended = ", ".join(f"{share:.0%} {end}" for end, share in whole["ended"].items() if share)
        if not whole["ended"]["answer"]:
            return [f"none of the {whole['questions']:,} rollouts ends with an answer ({ended}): look at some of them"]
        if not whole["searches"]:
            return ["the policy never searches: is it told to by its --template?"]
        if whole["empty_searches"] == 1:
            return ["the search engine found nothing at all: is it the right index?"]
        return []


def evaluate(options: Options, load: Load, parsers: Parsers, reporter: Reporter) -> Report:
    """Play the questions that are not in `options.output` yet, and measure all of them.

    Raises StepSearchError; what was played is kept, and the same command goes on.
    """
    with ExitStack() as stack:
        config = load(())
        setup = _set_up(options)
        questions = _questions(options, setup, config, parsers)
        total = questions.count()
        engine, retrieve = stack.enter_context(_searching(setup.choice, config, load, reporter))
        policy = stack.enter_context(closing(_policy(options, setup, config, stack)))
        settings = _settings(options, setup, config, questions, engine)
        folder = stack.enter_context(RolloutFolder(options.output, settings))
        report = Report(settings, rejects=questions.rejects)
        meter = stack.enter_context(reporter.stage("eval"))
        meter.expect(total)
        _play(questions, policy, retrieve, folder, report, meter)
        folder.write_metrics({"settings": settings, **report.measures, "usage": report.usage})
    return report


def _play(
    questions: Questions, policy: Policy, retrieve: Retrieve, folder: RolloutFolder, report: Report, meter: Meter
) -> None:
    tally = Tally()

    def fresh() -> Iterator[Asked]:
        for asked in questions:
            row = folder.earlier.pop((asked.task.source, asked.task.id), None)
            if row is None:
                yield asked
            else:
                tally.add(row)
                meter.advance()

    def watched(queries: Sequence[str], k: int) -> list[Any]:
        meter.note(policy.describe)
        return retrieve(queries, k)

    waiting = fresh()
    while batch := list(islice(waiting, policy.batch)):
        played = policy.play([asked.task for asked in batch], watched)
        rows = [row_of(one, asked.hops) for one, asked in zip(played, batch, strict=True)]
        folder.append(rows)
        for row in rows:
            tally.add(row)
            if row["ended"] == "refused":
                report.refused[row["error"]] += 1
        meter.advance(len(batch))
    report.measures, report.usage = tally.measures(), policy.usage()


# ---- what is evaluated


def find_checkpoint(location: str) -> str:
    """The folder of a model: the location itself, a checkpoint's policy, or that of a run's newest checkpoint.

    A name that is no folder may be one of the Hub. Raises ConfigError where there is no model.
    """
    folder = Path(location)
    if not folder.exists() and location.count("/") == 1 and not location.startswith((".", "/")):
        return location
    numbered = {int(path.name[11:]): path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()}
    newest = [numbered[max(numbered)]] if numbered else []
    for found in (folder, folder / "policy", *(part for path in newest for part in (path / "policy", path))):
        if any((found / name).is_file() for name in _MODEL_FILES):
            return str(found)
    missing = "holds no model" if folder.exists() else "is no folder"
    raise ConfigError(f"{location} {missing}", "name a run, one of its checkpoints, or a folder with a config.json")


def _set_up(options: Options) -> Setup:
    """Raises ConfigError."""
    if bool(options.checkpoint) == bool(options.llm):
        raise ConfigError("expected one policy", "name a CHECKPOINT or --llm MODEL, not both")
    if options.output and options.output.exists() and not options.output.is_dir():
        raise ConfigError(f"{options.output} is no folder", "name another with --output")
    model = options.llm or find_checkpoint(options.checkpoint or "")
    recipe = None if options.llm else _recipe(Path(model))
    template = load_template(options.template or (recipe.template if recipe else "musique"))
    if template.tool:
        raise ConfigError(f"the template {template.name} calls a tool; episodes are written in tags", "try musique")
    limits = replace(recipe.limits if recipe else Limits(), **options.lengths)
    choice = options.choice if options.choice.store or not recipe else replace(options.choice, store=recipe.store)
    return Setup(model, template, limits, choice)


def _recipe(model: Path) -> Recipe | None:
    """What a checkpoint was trained with, if its run tells. Raises ConfigError."""
    told = [folder / _RECIPE for folder in (model, *model.parents[:2]) if (folder / _RECIPE).is_file()]
    try:
        return Recipe.model_validate_json(told[0].read_bytes()) if told else None
    except ValidationError as error:
        raise ConfigError(f"{told[0]} is no recipe of this version", "move it away, and name its settings") from error


def _policy(options: Options, setup: Setup, config: RunConfig, stack: ExitStack) -> Policy:
    how: Any = {"temperature": options.temperature, "seed": options.seed}
    what = (setup.model, setup.template, setup.limits)
    if options.llm:
        from stepsearch_data.trainer.endpoint import ServedPolicy

        kept = options.output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        llm = config.llm.model_copy(update={"replay": kept / REPLIES})  # another model may have the name tomorrow
        batch = options.batch or 4 * llm.max_concurrency
        return ServedPolicy(llm, *what, batch=batch, raw=options.raw, **how)
    try:
        from stepsearch_data.trainer.checkpoint import LocalPolicy
    except ImportError as error:
        raise ConfigError(
            f"evaluating a checkpoint needs {error.name}",
            "pip install 'stepsearch-data[train]'; an endpoint, with --llm, needs nothing",
        ) from error
    return LocalPolicy(*what, batch=options.batch or 64, **how)


# ---- on what


def _questions(options: Options, setup: Setup, config: RunConfig, parsers: Parsers) -> Questions:
    if options.questions:
        return Files(options.questions, setup.template, parsers, options.limit)
    store = Store.open(setup.choice.store or config.store)
    return SplitOfStore(store, options.split, setup.template, options.limit)


@contextmanager
def _searching(choice: Choice, config: RunConfig, load: Load, reporter: Reporter) -> Iterator[tuple[Row, Retrieve]]:
    """The engine that is searched: what decides its answers, and how it is asked. Raises SearchError, StoreError."""
    engines = config.engines
    if len(engines) > 1:
        names = ", ".join(engine.name for engine in engines)
        raise ConfigError(f"a policy searches with one engine, and {names} are named", "choose one: --engine NAME")
    with ExitStack() as stack:
        root, corpus = None, ""
        if choice.corpus or choice.index or (engines[0].is_local and not engines[0].index):
            index = stack.enter_context(opened(choice, load, reporter))
            root, corpus, engines = index.root, index.manifest.digest, index.engines
        found = open_engine(engines[0], root, Service(config.run.workers, config.llm.replay))
        settings = {
            "name": engines[0].name,
            **engines[0].recipe(),
            "index": str(engines[0].index or ""),
            "corpus": corpus,
        }
        yield settings, stack.enter_context(retriever(found))


def _settings(options: Options, setup: Setup, config: RunConfig, questions: Questions, engine: Row) -> Row:
    """All that decides the rollouts."""
    policy: Row = {"model": setup.model}
    if options.llm:
        policy |= {"base_url": config.llm.base_url, "raw": options.raw}
    elif Path(setup.model).is_dir():
        policy |= {"stamp": max(path.stat().st_mtime_ns for path in Path(setup.model).iterdir())}
    wording = hashlib.sha256(orjson.dumps(setup.template.parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    return {
        **policy,
        "questions": questions.name,
        "digest": questions.digest(),
        "engine": engine,
        "template": f"{setup.template.name} {wording}",
        "limits": vars(setup.limits),
        "temperature": options.temperature,
        "seed": options.seed,
    }

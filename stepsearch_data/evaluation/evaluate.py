"""Evaluation: a policy answers questions with a search engine, and is measured by the official scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from stepsearch_data.core.progress import Meter, Reporter
from stepsearch_data.evaluation.measure import Row, Tally, row_of
from stepsearch_data.evaluation.policy import Policy
from stepsearch_data.evaluation.questions import Questions
from stepsearch_data.evaluation.rollout_file import RolloutFolder
from stepsearch_data.evaluation.setup import Options, open_policy, questions_of, set_up, settings_of
from stepsearch_data.indexes import Load
from stepsearch_data.llm.chat import Usage
from stepsearch_data.llm.money import price_of
from stepsearch_data.trainer.retrieval import open_retriever
from stepsearch_data.trainer.rollout import Retrieve
from stepsearch_data.trainer.search_env import Task


@dataclass
class Report:
    """What an evaluation found. `refused` counts rollouts that a server refused, by reason."""

    settings: Row
    measures: dict[str, dict[str, Row]] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    rejects: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """Say what is wrong with the policy or the engine as a whole."""
        whole = self.measures["all"]["all"]
        ended = ", ".join(f"{share:.0%} {end}" for end, share in whole["ended"].items() if share)
        if not whole["ended"]["answer"]:
            return [f"none of the {whole['rollouts']:,} rollouts ends with an answer ({ended}): look at some of them"]
        if not whole["searches"]:
            return ["the policy never searches: is it told to by its --template?"]
        if whole["empty_searches"] == 1:
            return ["the search engine found nothing at all: is it the right index?"]
        return []


def rehearse(options: Options, load: Load) -> Row:
    """Return what `evaluate` would ask a policy for, at most; None where it is not known. Nothing is asked or written.

    Raises StepSearchError.
    """
    config = load(())
    setup = set_up(options)
    questions = questions_of(options, setup, config)
    asked = rollouts = there = 0
    with RolloutFolder(
        options.output, settings_of(options, setup, config, questions, {}), dry=True, another=options.another
    ) as folder:
        for task in _samples(questions, options.samples):
            rollouts += 1
            asked += task.sample == 1
            there += folder.take_earlier(task) is not None
    calls = (rollouts - there) * setup.most_turns
    read, written = (calls * length for length in (setup.limits.max_length, setup.limits.max_new_tokens))
    price = price_of(setup.model, config.llm.prices)
    return {
        "questions": asked,
        "rollouts": rollouts,
        "there": there,
        "turns_at_most": calls,
        "completion_tokens_at_most": written,
        "cost_at_most": price.of(Usage(read, written)) if price and options.llm else None,
    }


def evaluate(options: Options, load: Load, reporter: Reporter) -> Report:
    """Play the questions that are not in `options.output` yet, and measure all of them.

    Raises StepSearchError; what was played is kept, and the same command goes on.
    """
    with ExitStack() as stack:
        config = load(())
        setup = set_up(options)
        questions = questions_of(options, setup, config)
        engine, retrieve = stack.enter_context(open_retriever(setup.choice, config, load, reporter))
        policy = open_policy(options, setup, config, stack)
        settings = settings_of(options, setup, config, questions, engine)
        folder = stack.enter_context(RolloutFolder(options.output, settings, another=options.another))
        report = Report(settings, rejects=questions.rejects)
        meter = stack.enter_context(reporter.stage("eval"))
        meter.expect(questions.total * options.samples)
        _play(_samples(questions, options.samples), policy, retrieve, folder, report, meter)
        folder.write_metrics({"settings": settings, **report.measures, "usage": report.usage})
    return report


def _samples(questions: Questions, count: int) -> Iterator[Task]:
    """Yield every question so many times, one after the other."""
    for task in questions.tasks:
        yield from (replace(task, sample=sample) for sample in range(1, count + 1))


def _play(
    tasks: Iterable[Task], policy: Policy, retrieve: Retrieve, folder: RolloutFolder, report: Report, meter: Meter
) -> None:
    tally = Tally()

    def fresh() -> Iterator[Task]:
        for task in tasks:
            row = folder.take_earlier(task)
            if row is None:
                yield task
            else:
                tally.add(row)
                meter.advance()

    def watched(queries: Sequence[str], k: int) -> list[Any]:
        meter.note(policy.describe)
        return retrieve(queries, k)

    waiting = fresh()
    while batch := list(islice(waiting, policy.batch)):
        rows = [row_of(played) for played in policy.play(batch, watched)]
        folder.append(rows)
        for row in rows:
            tally.add(row)
            if row["ended"] == "refused":
                report.refused[row["error"]] += 1
        meter.advance(len(batch))
    report.measures, report.usage = tally.measures(), policy.usage()

"""What a build would ask of a model, before anything is sent: calls, tokens and dollars by stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow.parquet as pq

from stepsearch_data.llm.chat import Request, Usage
from stepsearch_data.llm.money import BATCH_SHARE, CHARACTERS_A_TOKEN, price_of, tokens_in
from stepsearch_data.llm.replay import Replay
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.schemas.rows import Composed, Question
from stepsearch_data.schemas.tables import CHAINS, COMPOSED, LOADED, QUESTIONS, Inputs
from stepsearch_data.sources import CORPUS
from stepsearch_data.stages import rules
from stepsearch_data.stages.composing.drafts import Draft, Drafts
from stepsearch_data.stages.model.ask import COMPLAINTS, QUOTED
from stepsearch_data.stages.model.bounds import Calls, bounds_of
from stepsearch_data.stages.model.compose import compose_request
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.decompose import decompose_request
from stepsearch_data.stages.model.prompts import load_prompt
from stepsearch_data.stages.model.queries import queries_request

_TOKENS_A_HOP = 60  # of a decomposition's reply, as JSON
TOKENS_A_QUERY = 12
_TOKENS_A_SKIP = 40  # of a reply that composes nothing
_NONE = Calls()

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """The estimate of one stage. `replayed` calls were paid before. `cost` is None for a model without a price.

    Where the replies decide what is asked, these are the least; `most` is then the other bound.
    Only `most` of `compose` has repairs.
    """

    stage: str
    model: str
    calls: int
    replayed: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    most: Estimate | None = None


@dataclass(frozen=True)
class ToAsk:
    """What a build would ask about: `sure` questions, chains of which a model would compose some, and their questions.

    Of `maybe`, a question may still fail a check, or not be written at all: then it is as long as one can be.
    """

    sure: Iterable[Question]
    chains: Drafts | Sequence[Draft] = ()
    maybe: Iterable[Composed] = ()

    @property
    def exact(self) -> bool:
        """Tell whether all questions are known."""
        return not any(True for _ in self.maybe)


@dataclass(frozen=True)
class _Anew(Generic[T]):
    """Rows that are read anew each time, since memory may not hold them all."""

    read: Callable[[], Iterable[T]]

    def __iter__(self) -> Iterator[T]:
        return iter(self.read())


def asked_of(found: Inputs, scratch: Path) -> ToAsk:
    """Find in a build's tables what it would ask about; `found` are those that can be known before it."""
    table = QUESTIONS if QUESTIONS in found else LOADED
    sure = _Anew(lambda: (question for question in read_rows(found[table], table) if question.answerable))
    if table is QUESTIONS:
        return ToAsk(sure)
    if COMPOSED in found:
        return ToAsk(sure, (), _Anew(lambda: (row for row in read_rows(found[COMPOSED], COMPOSED) if row.kept)))
    if CHAINS not in found or not pq.read_metadata(found[CHAINS]).num_rows:
        return ToAsk(sure)
    drafts = Drafts(found, scratch)
    return ToAsk(sure, drafts, _Anew(lambda: (draft.longest() for draft in drafts)))


def estimate(
    asked: ToAsk,
    asking: Collection[str],
    configs: Mapping[str, Any],
    prompts: Mapping[str, Path],
    settings: LlmSettings,
) -> list[Estimate]:
    """Estimate calls, tokens and cost of the stages. Unknown hops are guessed by the offline rules."""
    estimates = {"compose": _compose, "verify": _verify, "decompose": _decompose, "queries": _queries}
    replay = Replay(settings.replay)
    try:
        return [
            estimating(asked, configs[name], prompts, settings, replay)
            for name, estimating in estimates.items()
            if name in asking and (name != "compose" or asked.chains)
        ]
    finally:
        replay.close()


def _compose(
    asked: ToAsk, config: ModelConfig, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay
) -> Estimate:
    """Return what `compose` asks where every chain is skipped, and where each reply is as long as it may be and faulty.

    What follows a replayed reply may not be paid yet.
    """
    loaded = {name: load_prompt(name, prompts.get(name)) for name in config.asks}
    url, replayed, least, first, repairs = settings.base_url.rstrip("/"), 0, Calls(), Calls(), Calls()
    again = min(config.max_tokens, QUOTED // CHARACTERS_A_TOKEN) + COMPLAINTS // CHARACTERS_A_TOKEN
    for draft in asked.chains:
        request = compose_request(loaded, draft, config)
        prompt = tokens_in(*(message.content for message in request.messages))
        for number in range(1, config.repairs + 1):
            repairs = repairs.plus(Calls(1, prompt + number * again, config.max_tokens))
        if replay.get(request.digest(url)):
            replayed += 1
            continue
        least = least.plus(Calls(1, prompt, _TOKENS_A_SKIP))
        first = first.plus(Calls(1, prompt, config.max_tokens))
    most = _priced("compose", config, first, replayed, settings, repairs)
    return replace(_priced("compose", config, least, replayed, settings), most=most)


def _decompose(
    asked: ToAsk, config: ModelConfig, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay
) -> Estimate:
    return _sum("decompose", config, _decompositions(asked.sure, config, prompts), settings, replay)


def _queries(
    asked: ToAsk, config: ModelConfig, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay
) -> Estimate:
    least = _sum("queries", config, _searches(asked.sure, config, prompts), settings, replay)
    if asked.exact:
        return least
    most = _sum("queries", config, _searches(chain(asked.sure, asked.maybe), config, prompts), settings, replay)
    return replace(least, most=most)


def _decompositions(
    questions: Iterable[Question], config: ModelConfig, prompts: Mapping[str, Path]
) -> Iterator[tuple[Request, int]]:
    prompt = load_prompt("decompose", prompts.get("decompose"))
    for question in questions:
        if question.source != CORPUS:
            yield decompose_request(prompt, question, config), question.hops * _TOKENS_A_HOP


def _searches(questions: Iterable[Question], config: Any, prompts: Mapping[str, Path]) -> Iterator[tuple[Request, int]]:
    prompt, count = load_prompt("queries", prompts.get("queries")), config.per_sub_question
    for question in questions:
        hops = rules.decompose(question)
        for hop in hops:
            if config.given and rules.given_queries(question, hops, hop, count):
                continue
            yield queries_request(prompt, question, hops, hop, count, config), count * TOKENS_A_QUERY


def _sum(
    stage: str, config: ModelConfig, asked: Iterator[tuple[Request, int]], settings: LlmSettings, replay: Replay
) -> Estimate:
    calls = replayed = prompt_tokens = completion_tokens = 0
    for request, reply_tokens in asked:
        if replay.get(request.digest(settings.base_url.rstrip("/"))):
            replayed += 1
            continue
        calls += 1
        prompt_tokens += tokens_in(*(message.content for message in request.messages))
        completion_tokens += reply_tokens
    return _priced(stage, config, Calls(calls, prompt_tokens, completion_tokens), replayed, settings)


def _verify(asked: ToAsk, config: Any, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay) -> Estimate:
    """Return what `verify` asks where every question fails as soon as it may, and where none fails."""
    loaded = {name: load_prompt(name, prompts.get(name)) for name in config.asks}
    url = settings.base_url.rstrip("/")
    least, most, replayed = Calls(), Calls(), 0
    largest: list[Calls] = []
    drawn = config.drawn(question.question_id for question in chain(asked.sure, asked.maybe))
    exact = asked.exact
    known = ((question, True, True) for question in asked.sure)
    for question, sure, written in chain(known, ((question, False, question.kept) for question in asked.maybe)):
        out = drawn is not None and question.question_id not in drawn
        if out and exact:
            continue
        bounds = bounds_of(question, loaded, config, written=written)
        if config.sample is None:
            most = most.plus(bounds.most)
        else:  # any of them may be drawn
            heappush(largest, bounds.most)
            if len(largest) > config.sample:
                heappop(largest)
        if out or not sure:
            continue
        first = [request for request in bounds.first if replay.get(request.digest(url))]
        replayed += len(first)
        least = least if first else least.plus(bounds.least)
    for calls in largest:
        most = most.plus(calls)
    return replace(
        _priced("verify", config, least, replayed, settings), most=_priced("verify", config, most, replayed, settings)
    )


def _priced(
    stage: str, config: ModelConfig, first: Calls, replayed: int, settings: LlmSettings, repairs: Calls = _NONE
) -> Estimate:
    """Return the estimate of first turns and of repairs, which are never sent in batches."""
    price, calls = price_of(config.llm, settings.prices), first.plus(repairs)
    share = BATCH_SHARE if settings.mode == "batch" else 1.0
    cost = price.of(Usage(*first[1:])) * share + price.of(Usage(*repairs[1:])) if price else None
    return Estimate(stage, config.llm, calls.number, replayed, calls.prompt_tokens, calls.completion_tokens, cost)

"""What a build would ask of a model, before anything is sent: calls, tokens and dollars by stage."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from pathlib import Path
from typing import Any

from stepsearch_data.llm.chat import Request, Usage
from stepsearch_data.llm.money import BATCH_SHARE, price_of, tokens_in
from stepsearch_data.llm.replay import Replay
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.schemas.rows import Composed, Question
from stepsearch_data.schemas.tables import CHAINS, COMPOSED, LOADED, QUESTIONS, Inputs
from stepsearch_data.sources import CORPUS
from stepsearch_data.stages import rules
from stepsearch_data.stages.composing.drafts import Draft, Drafts
from stepsearch_data.stages.model.bounds import Calls, bounds_of
from stepsearch_data.stages.model.compose import compose_request
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.decompose import decompose_request
from stepsearch_data.stages.model.prompts import load_prompt
from stepsearch_data.stages.model.queries import queries_request

_TOKENS_A_HOP = 60  # of a decomposition's reply, as JSON
_TOKENS_A_QUERY = 12
_TOKENS_A_SKIP = 40  # of a reply that composes nothing
_TOKENS_A_COMPOSED_HOP = 120
_TOKENS_A_REPAIR = 250  # of the complaints


@dataclass(frozen=True)
class Estimate:
    """The estimate of one stage. `replayed` calls were paid before. `cost` is None for a model without a price.

    Where the replies decide what is asked, these are the least; `most` is then the other bound.
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
class Asked:
    """What a build would ask about: `sure` questions, chains of which a model would compose some, and their questions.

    Of `maybe`, a question may still fail a check, or not be written at all: then it is as long as one can be.
    """

    sure: Sequence[Question]
    chains: Sequence[Draft] = ()
    maybe: Sequence[Composed] = ()


def asked_of(found: Inputs, scratch: Path) -> Asked:
    """Read in a build's tables what it would ask about; `found` are those that can be known before it."""
    if QUESTIONS in found:
        return Asked([question for question in read_rows(found[QUESTIONS], QUESTIONS) if question.answerable])
    loaded = [question for question in read_rows(found[LOADED], LOADED) if question.answerable]
    chains = list(Drafts(found, scratch)) if CHAINS in found else []
    if COMPOSED in found:
        return Asked(loaded, chains, [question for question in read_rows(found[COMPOSED], COMPOSED) if question.kept])
    return Asked(loaded, chains, [chain.longest() for chain in chains])


def estimate(
    asked: Asked,
    asking: Collection[str],
    configs: Mapping[str, Any],
    prompts: Mapping[str, Path],
    settings: LlmSettings,
) -> list[Estimate]:
    """Estimate calls, tokens and cost of the stages without repairs. Unknown hops are guessed by the offline rules."""
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
    asked: Asked, config: ModelConfig, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay
) -> Estimate:
    """Return what `compose` asks where every chain is skipped, and where each needs all repairs."""
    loaded = {name: load_prompt(name, prompts.get(name)) for name in config.asks}
    url, replayed, least, most = settings.base_url.rstrip("/"), 0, Calls(), Calls()
    for draft in asked.chains:
        request = compose_request(loaded, draft, config)
        if replay.get(request.digest(url)):
            replayed += 1
            continue
        prompt = tokens_in(*(message.content for message in request.messages))
        reply = (draft.chain.hops + 1) * _TOKENS_A_COMPOSED_HOP
        least = least.plus(Calls(1, prompt, _TOKENS_A_SKIP))
        for repairs in range(config.repairs + 1):
            most = most.plus(Calls(1, prompt + repairs * (reply + _TOKENS_A_REPAIR), reply))
    return replace(
        _priced("compose", config, least, replayed, settings), most=_priced("compose", config, most, replayed, settings)
    )


def _decompose(
    asked: Asked, config: ModelConfig, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay
) -> Estimate:
    return _sum("decompose", config, _decompositions(asked.sure, config, prompts), settings, replay)


def _queries(
    asked: Asked, config: ModelConfig, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay
) -> Estimate:
    least = _sum("queries", config, _searches(asked.sure, config, prompts), settings, replay)
    if not asked.maybe:
        return least
    most = _sum("queries", config, _searches([*asked.sure, *asked.maybe], config, prompts), settings, replay)
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
            yield queries_request(prompt, question, hops, hop, count, config), count * _TOKENS_A_QUERY


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


def _verify(asked: Asked, config: Any, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay) -> Estimate:
    """Return what `verify` asks where every question fails as soon as it may, and where none fails."""
    loaded = {name: load_prompt(name, prompts.get(name)) for name in config.asks}
    url = settings.base_url.rstrip("/")
    least, mosts, replayed = Calls(), [], 0
    drawn = config.drawn(question.question_id for question in (*asked.sure, *asked.maybe))
    maybe = {question.question_id: question.kept for question in asked.maybe}
    for question in (*asked.sure, *asked.maybe):
        out = drawn is not None and question.question_id not in drawn
        if out and not maybe:
            continue
        bounds = bounds_of(question, loaded, config, written=maybe.get(question.question_id, True))
        mosts.append(bounds.most)
        if out or question.question_id in maybe:
            continue
        first = [request for request in bounds.first if replay.get(request.digest(url))]
        replayed += len(first)
        least = least if first else least.plus(bounds.least)
    most = Calls()
    for calls in nlargest(config.sample or len(mosts), mosts):
        most = most.plus(calls)
    return replace(
        _priced("verify", config, least, replayed, settings), most=_priced("verify", config, most, replayed, settings)
    )


def _priced(stage: str, config: ModelConfig, calls: Calls, replayed: int, settings: LlmSettings) -> Estimate:
    price = price_of(config.llm, settings.prices)
    share = BATCH_SHARE if settings.mode == "batch" else 1.0
    cost = price.of(Usage(calls.prompt_tokens, calls.completion_tokens)) * share if price else None
    return Estimate(stage, config.llm, calls.number, replayed, calls.prompt_tokens, calls.completion_tokens, cost)

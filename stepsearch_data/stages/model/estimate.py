"""What a build would ask of a model, before anything is sent: calls, tokens and dollars by stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepsearch_data.llm.chat import Request, Usage
from stepsearch_data.llm.money import BATCH_SHARE, price_of, tokens_in
from stepsearch_data.llm.replay import Replay
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.schemas.rows import Question
from stepsearch_data.stages import rules
from stepsearch_data.stages.model.bounds import Calls, bounds_of
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.decompose import decompose_request
from stepsearch_data.stages.model.prompts import load_prompt
from stepsearch_data.stages.model.queries import queries_request

_TOKENS_A_HOP = 60  # of a decomposition's reply, as JSON
_TOKENS_A_QUERY = 12


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


def estimate(
    questions: Iterable[Question], configs: Mapping[str, Any], prompts: Mapping[str, Path], settings: LlmSettings
) -> list[Estimate]:
    """Estimate calls, tokens and cost without repairs. Unknown hops are guessed by the offline rules."""
    answerable = [question for question in questions if question.answerable]
    asked = {"decompose": _decompositions, "queries": _queries}
    chosen = {name: configs[name] for name in asked if configs[name].uses_model}
    verifying = configs["verify"].uses_model
    if not (chosen or verifying):
        return []
    replay = Replay(settings.replay)
    try:
        found = [_verify(answerable, configs["verify"], prompts, settings, replay)] if verifying else []
        for name, config in chosen.items():
            found.append(_sum(name, config, asked[name](answerable, config, prompts), settings, replay))
        return found
    finally:
        replay.close()


def _decompositions(
    questions: Iterable[Question], config: ModelConfig, prompts: Mapping[str, Path]
) -> Iterator[tuple[Request, int]]:
    prompt = load_prompt("decompose", prompts.get("decompose"))
    for question in questions:
        yield decompose_request(prompt, question, config), question.hops * _TOKENS_A_HOP


def _queries(questions: Iterable[Question], config: Any, prompts: Mapping[str, Path]) -> Iterator[tuple[Request, int]]:
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


def _verify(
    questions: Sequence[Question], config: Any, prompts: Mapping[str, Path], settings: LlmSettings, replay: Replay
) -> Estimate:
    """Return what `verify` asks where every question fails as soon as it may, and where none fails."""
    loaded = {name: load_prompt(name, prompts.get(name)) for name in config.asks}
    url = settings.base_url.rstrip("/")
    least, most, replayed = Calls(), Calls(), 0
    drawn = config.drawn(question.question_id for question in questions)
    for question in questions:
        if drawn is not None and question.question_id not in drawn:
            continue
        bounds = bounds_of(question, loaded, config)
        first = [request for request in bounds.first if replay.get(request.digest(url))]
        replayed += len(first)
        least = least if first else least.plus(bounds.least)
        most = most.plus(bounds.most)
    return replace(
        _priced("verify", config, least, replayed, settings), most=_priced("verify", config, most, replayed, settings)
    )


def _priced(stage: str, config: ModelConfig, calls: Calls, replayed: int, settings: LlmSettings) -> Estimate:
    price = price_of(config.llm, settings.prices)
    share = BATCH_SHARE if settings.mode == "batch" else 1.0
    cost = price.of(Usage(calls.prompt_tokens, calls.completion_tokens)) * share if price else None
    return Estimate(stage, config.llm, calls.number, replayed, calls.prompt_tokens, calls.completion_tokens, cost)

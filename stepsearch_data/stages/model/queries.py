"""Queries by a model: distinct searches for a hop, none of which leaks."""

from __future__ import annotations

from collections.abc import Sequence

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.core.text import normalise
from stepsearch_data.llm.chat import ChatModel, Request
from stepsearch_data.schemas.rows import Query, Question, SubQuestion
from stepsearch_data.stages.model.ask import ask
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.prompts import Prompt
from stepsearch_data.stages.model.replies import QueryList
from stepsearch_data.stages.model.structured import Invalid, parse_json
from stepsearch_data.stages.rules.keywords import numbered
from stepsearch_data.stages.rules.leaks import forbidden, leaked
from stepsearch_data.stages.rules.verbalise import references

_LONGEST = 200  # characters
_READ = 50  # queries of one reply
_ENOUGH = 3  # queries that are accepted when the model does not manage `count`


async def write_queries(
    model: ChatModel,
    prompt: Prompt,
    question: Question,
    hops: Sequence[SubQuestion],
    hop: SubQuestion,
    count: int,
    config: ModelConfig,
    sample: int = 0,
) -> list[Query]:
    """Ask for `count` queries for a hop, and accept 3 where the model does not manage more. Raises RowRejected."""
    secrets = forbidden(hops, hop.hop, (question.answer, *question.answer_aliases))
    best: list[str] = []

    def check(text: str) -> list[str]:
        nonlocal best
        good, wrong = _sort_out(parse_json(text, QueryList).queries, question, hop, secrets)
        best = max(best, good, key=len)
        if len(good) < count:
            raise Invalid([f"{count} queries are wanted, and {len(good)} of yours can be used", *wrong])
        return good[:count]

    request = queries_request(prompt, question, hops, hop, count, config, sample)
    try:
        texts = await ask(model, request, check, config.repairs)
    except RowRejected:
        if len(best) < min(_ENOUGH, count):
            raise
        texts = best
    return numbered(hop, (("model", text) for text in texts))


def queries_request(
    prompt: Prompt,
    question: Question,
    hops: Sequence[SubQuestion],
    hop: SubQuestion,
    count: int,
    config: ModelConfig,
    sample: int = 0,
) -> Request:
    """Make the first request for a hop. It shows only earlier answers, so that the model cannot copy a later one."""
    known = [f"- {earlier.sub_question} → {earlier.sub_answer}" for earlier in hops if earlier.hop < hop.hop]
    messages = prompt.render(
        question=question.question,
        known="\n".join(known) or "nothing yet",
        sub_question=hop.sub_question,
        count=str(count),
    )
    return config.request(messages, QueryList, sample)


def _sort_out(
    queries: Sequence[str], question: Question, hop: SubQuestion, secrets: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the queries that can be used, and what is wrong with the others."""
    good: dict[str, str] = {}
    wrong: list[str] = []
    allowed = {*references(question.question), *references(hop.sub_question)}
    for number, query in enumerate(queries[:_READ], start=1):
        key = normalise(query)
        if not key:
            fault = "is empty"
        elif key in good:
            fault = f"says the same as another one: {good[key]!r}"
        elif len(query) > _LONGEST:
            fault = f"is longer than {_LONGEST} characters"
        elif unresolved := set(references(query)) - allowed:
            fault = f"holds the placeholder #{min(unresolved)}; write the name that it stands for"
        elif leaks := leaked(query, question.question, secrets):
            fault = f"gives away an answer that is yet to be found: {leaks[0]!r}"
        else:
            good[key] = query
            continue
        wrong.append(f"query {number} {fault}")
    return list(good.values()), wrong

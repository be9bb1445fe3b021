"""Decomposition by a model: ordered sub-questions, each with its answer and its paragraph."""

from __future__ import annotations

from stepsearch_data.llm.chat import ChatModel, Request
from stepsearch_data.schemas.rows import Question, SubQuestion
from stepsearch_data.stages.model.ask import ask
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.faults import faults
from stepsearch_data.stages.model.prompts import Prompt
from stepsearch_data.stages.model.replies import Decomposition
from stepsearch_data.stages.model.structured import Invalid, parse_json
from stepsearch_data.stages.rules.verbalise import fill, references

_ALIASES = 5


async def decompose(
    model: ChatModel, prompt: Prompt, question: Question, config: ModelConfig, sample: int = 0
) -> list[SubQuestion]:
    """Ask for the hops of an answerable question. Raises RowRejected when no reply is valid."""

    def check(text: str) -> Decomposition:
        reply = parse_json(text, Decomposition)
        wrong = faults(reply, question)
        if wrong:
            raise Invalid(wrong)
        return reply

    request = decompose_request(prompt, question, config, sample)
    return _rows(await ask(model, request, check, config.repairs), question)


def decompose_request(prompt: Prompt, question: Question, config: ModelConfig, sample: int = 0) -> Request:
    """Make the first request for a question."""
    places = {paragraph.passage_id: number for number, paragraph in enumerate(question.supporting, start=1)}
    official = [
        f"{number}. {step.text} → {step.answer} (paragraph {places.get(step.passage_id, '?')})"
        for number, step in enumerate(question.decomposition, start=1)
    ]
    messages = prompt.render(
        question=question.question,
        answer=_with_aliases(question),
        decomposition="\n".join(official) or "none",
        paragraphs="\n\n".join(
            f"[{number}] {paragraph.title}\n{paragraph.text}"
            for number, paragraph in enumerate(question.supporting, start=1)
        ),
    )
    return config.request(messages, Decomposition, sample)


def _with_aliases(question: Question) -> str:
    aliases = question.answer_aliases[:_ALIASES]
    return f"{question.answer} (also accepted: {'; '.join(aliases)})" if aliases else question.answer


def _rows(reply: Decomposition, question: Question) -> list[SubQuestion]:
    answers = [step.answer for step in reply.steps]
    passages = [question.supporting[step.paragraph - 1].passage_id for step in reply.steps]
    forms = _relation_forms(question, passages)
    return [
        SubQuestion(
            question_id=question.question_id,
            source=question.source,
            hop=number,
            hops=len(answers),
            sub_question=fill(step.question, answers, references(step.question)),
            template=step.question,
            relation_form=form,
            sub_answer=step.answer,
            depends_on=sorted({*step.depends_on, *references(step.question)}),
            gold_passage_ids=[passage],
            method="model",
        )
        for number, (step, passage, form) in enumerate(zip(reply.steps, passages, forms, strict=True), start=1)
    ]


def _relation_forms(question: Question, passages: list[str]) -> list[str]:
    """Return the official relation forms where the steps use the official paragraphs in order, else empty ones."""
    official = question.decomposition
    if [step.passage_id for step in official] != passages:
        return [""] * len(passages)
    return [step.text if ">>" in step.text else "" for step in official]

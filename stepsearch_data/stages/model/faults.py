"""What is wrong with a decomposition, in words fit to show to the model."""

from __future__ import annotations

from collections.abc import Iterator

from stepsearch_data.core.text import mentions, normalise
from stepsearch_data.schemas.rows import Question, SupportingParagraph
from stepsearch_data.stages.model.replies import Decomposition, Step
from stepsearch_data.stages.rules.leaks import leaked
from stepsearch_data.stages.rules.verbalise import references

MAX_STEPS = 8


def faults(reply: Decomposition, question: Question) -> list[str]:
    """Return everything that is wrong with the decomposition of an answerable question; nothing if it is valid."""
    limit = max(MAX_STEPS, len(question.decomposition))
    if not 1 <= len(reply.steps) <= limit:
        return [f"write 1 to {limit} steps, not {len(reply.steps)}"]
    return [
        *_whole(reply.steps, question),
        *(
            f"step {number}: {fault}"
            for number, step in enumerate(reply.steps, start=1)
            for fault in (*_form(number, step), *_support(number, reply, question), *_leaks(number, reply, question))
        ),
    ]


def _whole(steps: list[Step], question: Question) -> Iterator[str]:
    official = question.decomposition
    if official and len(steps) != len(official):
        yield f"write {len(official)} steps, one for each step of the official decomposition, not {len(steps)}"
    golds = _golds(question)
    if normalise(steps[-1].answer) not in map(normalise, golds):
        accepted = " or ".join(repr(gold) for gold in golds)
        yield f"the answer of the last step must be {accepted}, not {steps[-1].answer!r}"
    used = {step.paragraph for step in steps}
    for number in sorted(_needed(question) - used):
        yield f"paragraph {number} supports the answer, but no step uses it"


def _form(number: int, step: Step) -> Iterator[str]:
    if not normalise(step.question):
        yield "the question is empty"
    if not step.answer:
        yield "the answer is empty"
    for reference in references(step.question):
        if not 1 <= reference < number:
            yield f"#{reference} in its question stands for no earlier step (for a rank, write 'number {reference}')"
    for dependency in step.depends_on:
        if not 1 <= dependency < number:
            yield f"depends_on holds {dependency}, which is no earlier step"


def _support(number: int, reply: Decomposition, question: Question) -> Iterator[str]:
    step, paragraphs = reply.steps[number - 1], question.supporting
    if not 1 <= step.paragraph <= len(paragraphs):
        yield f"there is no paragraph {step.paragraph}; they are numbered from 1 to {len(paragraphs)}"
        return
    if not step.answer or _yes_or_no(step.answer) or _occurs(step.answer, paragraphs[step.paragraph - 1]):
        return
    golds = _golds(question)
    if number == len(reply.steps) and not any(_occurs(gold, paragraph) for gold in golds for paragraph in paragraphs):
        return  # the required gold answer is in no paragraph, so no reply can meet this check
    elsewhere = [str(n) for n, paragraph in enumerate(paragraphs, start=1) if _occurs(step.answer, paragraph)]
    hint = f"it does in paragraph {', '.join(elsewhere)}" if elsewhere else "copy it verbatim"
    yield f"its answer {step.answer!r} does not occur in paragraph {step.paragraph} ({hint})"


def _leaks(number: int, reply: Decomposition, question: Question) -> Iterator[str]:
    answers = (*(step.answer for step in reply.steps[number - 1 :]), *_golds(question))
    secrets = [answer for answer in dict.fromkeys(answers) if not _yes_or_no(answer)]
    for answer in leaked(reply.steps[number - 1].question, question.question, secrets):
        yield f"its question gives away {answer!r}, which only this or a later step finds out"


def _golds(question: Question) -> list[str]:
    return list(dict.fromkeys((question.answer, *question.answer_aliases)))


def _needed(question: Question) -> set[int]:
    """Return the numbers of the paragraphs that steps must use; none where too few steps are allowed for all."""
    official = {step.passage_id for step in question.decomposition}
    needed = {n for n, p in enumerate(question.supporting, start=1) if not official or p.passage_id in official}
    return needed if official or len(needed) <= MAX_STEPS else set()


def _occurs(answer: str, paragraph: SupportingParagraph) -> bool:
    text = f"{paragraph.title} {paragraph.text}"
    return mentions(text, answer) or answer in text  # "A" and "!" normalise to nothing


def _yes_or_no(answer: str) -> bool:
    return normalise(answer) in {"yes", "no"}

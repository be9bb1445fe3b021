"""How often `prove` asks about a question: at least, where it fails as soon as it may, and at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stepsearch_data.llm.chat import Request
from stepsearch_data.llm.money import tokens_in
from stepsearch_data.schemas.rows import Question
from stepsearch_data.stages.model.prompts import Prompt
from stepsearch_data.stages.model.prove import MOST_ANSWERS, recall_request
from stepsearch_data.stages.proof.signals import FAILED, is_closed_choice, static_signals
from stepsearch_data.stages.rules import decompose

AROUND = 10  # passages that a reader gets beside the gold ones
TOKENS_AN_ANSWER = 20  # tokens of an answer, as JSON
TOKENS_A_QUOTE = 60  # tokens of a quote, as JSON
_OF_CORPUS = {"several_titles", "one_search", "shown_at_once"}  # checks that need its passages, so may end any question


class Calls(NamedTuple):
    """A number of calls, and the tokens that they take."""

    number: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: Calls) -> Calls:
        """Return both together."""
        return Calls(*map(sum, zip(self, other, strict=True)))

    def times(self, number: int) -> Calls:
        """Return so many of them."""
        return Calls(*(value * number for value in self))


class Bounds(NamedTuple):
    """What is asked about a question at least and at most, and the first requests, which are known before."""

    least: Calls
    most: Calls
    first: list[Request]


def bounds_of(question: Question, prompts: Mapping[str, Prompt], config: Any, *, written: bool = True) -> Bounds:
    """Return the bounds for a question by the settings of `verify`; not `written` yet, it may pass all rules.

    A passage that is not known yet counts as long as the longest gold one.
    """
    longest = max(tokens_in(gold.title, gold.text) for gold in question.supporting)
    gold = sum(tokens_in(paragraph.title, paragraph.text) for paragraph in question.supporting)
    number, closed = len(question.supporting), is_closed_choice(question)

    def calls(prompt: str, passages: int, reply: int) -> Calls:
        return Calls(1, tokens_in(prompts[prompt].text, question.question) + passages, reply)

    recall, same = calls("recall", 0, TOKENS_AN_ANSWER), calls("same", 0, TOKENS_AN_ANSWER)
    read = calls("read", gold, number * TOKENS_A_QUOTE + TOKENS_AN_ANSWER)
    without = calls("read", gold - min(gold, longest) + longest, number * TOKENS_A_QUOTE + TOKENS_AN_ANSWER)
    unique = calls("unique", gold + AROUND * longest, MOST_ANSWERS * (number * TOKENS_A_QUOTE + TOKENS_AN_ANSWER))
    checks = [] if closed else [recall.plus(same)]
    checks += [read.plus(same), without.plus(same).times(number), unique.plus(same.times(MOST_ANSWERS))]
    asked = {} if closed else {"closed_book": recall}
    asked |= {"answerable": read, "left_one_out": without.times(number), "unique": unique}
    stop = () if config.whole(question.question_id) else config.stop
    signals = static_signals(question, decompose(question), frozenset()) if config.signals and written else []
    if any(signal.outcome == FAILED and signal.check in stop for signal in signals):
        return Bounds(Calls(), Calls(), [])
    most = _all(checks).times(config.samples)
    first = [] if closed else [recall_request(prompts, question, config, n) for n in range(config.samples)]
    ends = next((at for at, check in enumerate(asked, start=1) if check in stop), len(asked))
    least = _all(list(asked.values())[:ends]).times(config.samples)
    return Bounds(Calls() if config.signals and _OF_CORPUS & {*stop} else least, most, first)


def _all(calls: list[Calls]) -> Calls:
    total = Calls()
    for each in calls:
        total = total.plus(each)
    return total

"""Readings by a model: whether a question can be answered without its paragraphs, with all, and only with all.

The reader never sees the proposed answer. Only `same` does, which compares two answers that are written
differently. A quote counts where its passage holds it word for word.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel

from stepsearch_data.core.text import mentions, normalise
from stepsearch_data.llm.chat import ChatModel, Request
from stepsearch_data.schemas.rows import Check, Question
from stepsearch_data.search.documents import Document
from stepsearch_data.stages.model.ask import ask
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.prompts import Prompt
from stepsearch_data.stages.model.replies import Reading, Readings, Recollection, Sameness
from stepsearch_data.stages.model.structured import Invalid, parse_json
from stepsearch_data.stages.proof.decision import failures
from stepsearch_data.stages.proof.signals import FAILED, PASSED, UNASKED, VOID, accepted, is_closed_choice

T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)

MOST_ANSWERS = 3  # of one reply that says how many a question has
_FEWEST_WORDS = 2  # of a quote
_CHANCE = "a guess is right by chance"
_NOT_SAID = "unknown"


@dataclass(frozen=True)
class Case:
    """A question with its gold paragraphs, and other passages by searches: for the question, and for its hops too."""

    question: Question
    gold: Sequence[Document]
    found: Sequence[Document]
    around: Sequence[Document]


@dataclass
class _Reader:
    model: ChatModel
    prompts: Mapping[str, Prompt]
    config: ModelConfig
    case: Case
    samples: int
    first: int  # number of the first sample
    same: dict[str, bool] = field(default_factory=dict)

    async def closed_book(self) -> list[Check]:
        """Ask without a passage."""
        if is_closed_choice(self.case.question):
            return [self._row("closed_book", VOID, reason=_CHANCE)]
        replies = await self._sampled(lambda sample: self._ask(self._recall_request(sample), Recollection))
        right = await self._right([reply.answer for reply in replies])
        return [
            self._row(
                "closed_book",
                FAILED if knows else PASSED,
                sample=sample,
                answer=reply.answer,
                right=knows,
                reason="right without a passage" if knows else "",
            )
            for sample, (reply, knows) in enumerate(zip(replies, right, strict=True))
        ]

    async def answerable(self) -> list[Check]:
        """Ask with all gold paragraphs."""
        return await self._read("answerable", self.case.gold)

    async def left_one_out(self) -> list[Check]:
        """Ask with all gold paragraphs but one, in whose place is the best other passage of a search."""
        parts = [(left_out.id, self._without(left_out)) for left_out in self.case.gold]
        rows = await _all(self._read("left_one_out", shown, part) for part, shown in parts)
        return [row for of_part in rows for row in of_part]

    async def unique(self) -> list[Check]:
        """Ask for every answer that the gold paragraphs and the best other passages support."""
        documents = [*self.case.gold, *self.case.around]
        shown = [self._shuffled(documents, "unique", sample) for sample in range(self.samples)]
        replies = await self._sampled(lambda sample: self._ask(self._unique_request(shown[sample], sample), Readings))
        chains = [
            [reading for reading in reply.answers if self._proves(reading, passages, len(self.case.gold))]
            for reply, passages in zip(replies, shown, strict=True)
        ]
        rows = []
        for sample, readings in enumerate(chains):
            right = await self._right([reading.answer for reading in readings[:MOST_ANSWERS]])
            others = [reading for reading, same in zip(readings, right, strict=False) if not same]
            told = (others or readings)[:1]
            rows.append(
                self._row(
                    "unique",
                    FAILED if others else PASSED,
                    sample=sample,
                    answer=told[0].answer if told else "",
                    right=not others if told else None,
                    quotes=[quote.text for reading in told for quote in reading.quotes],
                    quotes_valid=True if told else None,
                    reason=f"also answered by {others[0].answer!r}" if others else "",
                )
            )
        return rows

    async def _read(self, check: str, documents: Sequence[Document], part: str = "") -> list[Check]:
        """Ask for the answer that these passages support."""
        shown = [self._shuffled(documents, f"{check} {part}", sample) for sample in range(self.samples)]
        replies = await self._sampled(lambda sample: self._ask(self._read_request(shown[sample], sample), Reading))
        need = len(self.case.gold) if is_closed_choice(self.case.question) else 1
        valid = [self._proves(reply, passages, need) for reply, passages in zip(replies, shown, strict=True)]
        right = await self._right([reply.answer if ok else "" for reply, ok in zip(replies, valid, strict=True)])
        return [self._reading(check, part, *of) for of in zip(range(self.samples), replies, valid, right, strict=True)]

    def _reading(self, check: str, part: str, sample: int, reply: Reading, valid: bool, right: bool) -> Check:  # noqa: FBT001
        """Return the row of one reading: a right one speaks for `answerable`, and against a question without a part."""
        answered = normalise(reply.answer) not in ("", _NOT_SAID)
        wanted = check == "answerable"
        if right:
            reason = "" if wanted else "right without this paragraph"
        else:
            reason = (
                ("another answer" if valid else "its quotes do not hold" if answered else "no answer") if wanted else ""
            )
        return self._row(
            check,
            PASSED if right == wanted else FAILED,
            part=part,
            sample=sample,
            answer=reply.answer,
            right=right if valid or not answered else None,
            quotes=[quote.text for quote in reply.quotes],
            quotes_valid=valid if answered else None,
            reason=reason,
        )

    def _proves(self, reading: Reading, shown: Sequence[Document], need: int) -> bool:
        """Tell whether at least `need` quotes stand in their passages, all of them do, and one says the answer.

        Of a closed choice, the quotes must be of `need` passages: one alone leaves a guess.
        """
        texts = [_spaced(f"{document.title} {document.text}") for document in shown]
        quotes = [(quote.passage, _spaced(quote.text)) for quote in reading.quotes]
        if not all(
            1 <= passage <= len(texts) and len(text.split()) >= _FEWEST_WORDS and text in texts[passage - 1]
            for passage, text in quotes
        ):
            return False
        closed = is_closed_choice(self.case.question)
        count = len({passage for passage, _ in quotes}) if closed else len(quotes)
        return count >= need and (closed or any(mentions(text, reading.answer) for _, text in quotes))

    async def _right(self, answers: Sequence[str]) -> list[bool]:
        """Tell of each answer whether it is the question's; the model is asked where the words differ."""
        known = {normalise(answer) for answer in accepted(self.case.question)}
        doubtful = {normalise(answer): answer for answer in answers} if answers else {}
        new = {key: answer for key, answer in doubtful.items() if key not in known | {"", _NOT_SAID} | self.same.keys()}
        said = await _all(self._ask(self._same_request(answer), Sameness) for answer in new.values())
        self.same |= {key: reply.same for key, reply in zip(new, said, strict=True)}
        return [key in known or self.same.get(key, False) for key in map(normalise, answers)]

    async def _sampled(self, asking: Callable[[int], Awaitable[T]]) -> list[T]:
        return await _all(map(asking, range(self.samples)))

    async def _ask(self, request: Request, reply: type[R]) -> R:
        return await ask(self.model, request, lambda text: _checked(text, reply), self.config.repairs)

    def _recall_request(self, sample: int) -> Request:
        return recall_request(self.prompts, self.case.question, self.config, self.first + sample)

    def _read_request(self, shown: Sequence[Document], sample: int) -> Request:
        return self._request("read", Reading, sample, passages=_listed(shown))

    def _unique_request(self, shown: Sequence[Document], sample: int) -> Request:
        return self._request("unique", Readings, sample, passages=_listed(shown))

    def _same_request(self, answer: str) -> Request:
        return self._request("same", Sameness, 0, one=self.case.question.answer, other=answer)

    def _request(self, prompt: str, reply: type[BaseModel], sample: int, **values: str) -> Request:
        messages = self.prompts[prompt].render(question=self.case.question.question, **values)
        return self.config.request(messages, reply, self.first + sample)

    def _without(self, left_out: Document) -> list[Document]:
        rest = [document for document in self.case.gold if document.id != left_out.id]
        return [*rest, *self.case.found[:1]]

    def _shuffled(self, documents: Sequence[Document], check: str, sample: int) -> list[Document]:
        """Return the documents in an order that says nothing, the same in every build."""
        seed = f"{self.case.question.question_id} {check} {sample}"
        return sorted(documents, key=lambda document: hashlib.sha256(f"{seed} {document.id}".encode()).digest())

    def _row(self, check: str, outcome: str, **values: object) -> Check:
        fields: dict[str, object] = {
            "part": "",
            "sample": 0,
            "answer": "",
            "right": None,
            "quotes": [],
            "quotes_valid": None,
            "reason": "",
            "judge": self.config.llm if outcome in (PASSED, FAILED) else "",
        }
        question = self.case.question
        about = {"question_id": question.question_id, "source": question.source, "check": check, "outcome": outcome}
        return Check.model_validate({**about, **fields, **values})


def recall_request(prompts: Mapping[str, Prompt], question: Question, config: ModelConfig, sample: int) -> Request:
    """Make the request that shows no passage."""
    return config.request(prompts["recall"].render(question=question.question), Recollection, sample)


async def prove(
    model: ChatModel,
    prompts: Mapping[str, Prompt],
    case: Case,
    config: ModelConfig,
    *,
    samples: int,
    first: int = 0,
    stop: Collection[str] = (),
) -> list[Check]:
    """Ask all checks in their order; nothing more after one of `stop` has failed. Raises RowRejected."""
    reader = _Reader(model, prompts, config, case, samples, first)
    rows: list[Check] = []
    stopped = ""
    for asking in (reader.closed_book, reader.answerable, reader.left_one_out, reader.unique):
        check = asking.__name__
        if stopped:
            rows.append(reader._row(check, UNASKED, reason=f"{stopped} had failed"))  # noqa: SLF001
            continue
        made = await asking()
        rows += made
        stopped = check if check in stop and any(failures(made)) else ""
    return rows


async def _all(asking: Iterable[Awaitable[T]]) -> list[T]:
    """Return all results, once all have come: the first error is raised then, so that what was paid for is kept."""
    results = await asyncio.gather(*asking, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


def _checked(text: str, reply: type[R]) -> R:
    made = parse_json(text, reply)
    if isinstance(made, Recollection | Reading) and not made.answer:
        raise Invalid(['the answer is empty; write "unknown" where there is none'])
    return made


def _listed(documents: Sequence[Document]) -> str:
    return "\n\n".join(f"[{n}] {document.title}\n{document.text}" for n, document in enumerate(documents, start=1))


def _spaced(text: str) -> str:
    return " ".join(text.split())

"""verify: questions and their paragraphs → `checks`: what speaks against each question, without and with a model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from heapq import nsmallest
from itertools import chain, islice, repeat, zip_longest
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import QuestionRows, ask_for_each_question, map_questions
from stepsearch_data.pipeline.stage import Needs, Stage
from stepsearch_data.schemas.rows import KEPT, Check, Question, SubQuestion
from stepsearch_data.schemas.tables import CANDIDATES, CHECKS, COMPOSED, INDEX, PARAGRAPHS
from stepsearch_data.search.documents import Document
from stepsearch_data.search.index import open_engine
from stepsearch_data.search.kinds import Service, TextConfig
from stepsearch_data.stages import model, rules
from stepsearch_data.stages.proof.decision import GATES, READINGS, check_names, draw, failures, whole_below
from stepsearch_data.stages.proof.signals import (
    AT_ONCE,
    UNASKED,
    Signal,
    is_chain,
    is_checked,
    names_of_several,
    search_signals,
    static_signals,
)

_BATCH = 500  # questions that are searched at once
_TOP = 10  # documents of a search
_FOLLOWED = 2  # documents of a hop that may hold another answer to it, and lead elsewhere
_WRITE = 20_000  # rows
_REFERENCE = re.compile(r"#\d+")
_WORD = re.compile(r"\w+")


class VerifyConfig(model.ModelConfig):
    """Which checks are made, and how often a model is asked."""

    temperature: float = Field(default=0.7, ge=0, le=2, description="sampling temperature of the model")
    signals: bool = Field(default=True, description="check by rules and by one search; no model is asked")
    samples: int = Field(default=3, ge=1, le=100, description="how often the model is asked the same")
    sample: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="ask the model about at most N questions, drawn by their ids"
    )
    sample_all: float = Field(
        default=0.05, ge=0, le=1, description="share of questions that go through all checks, whatever fails first"
    )
    stop: tuple[str, ...] = Field(default=GATES, description="checks after whose failure the model is asked no more")

    @field_validator("stop")
    @classmethod
    def _are_checks(cls, checks: tuple[str, ...]) -> tuple[str, ...]:
        return check_names(checks)

    @property
    def asks(self) -> tuple[str, ...]:
        """Return the names of the prompts that a model gets."""
        return ("recall", "read", "unique", "same")

    def drawn(self, question_ids: Iterable[str]) -> set[str] | None:
        """Return the questions that a model is asked about, or None for all."""
        return None if self.sample is None else set(nsmallest(self.sample, question_ids, partial(draw, "sample")))

    def whole(self, question_id: str) -> bool:
        """Tell whether a question goes through all checks."""
        return draw("whole", question_id) < whole_below(self.sample_all)


def verify(context: StageContext) -> None:
    """Check every answerable question."""
    config = context.config(VerifyConfig)
    if context.model:
        _by_model(context, config)
    elif config.signals:
        _by_rules(context)
    else:
        context.meter.expect(0)


# --- Without a model --------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What a worker says about a question; nothing about an unanswerable one. See `search_signals`."""

    question_id: str
    source: str
    signals: Sequence[Signal] = ()
    gold: Sequence[str] = ()
    last: Sequence[str] = ()


def _by_rules(context: StageContext) -> None:
    rows = _Rows(context)
    static = partial(_static, names_of_several(_titles(context)))
    with closing(_Search(context)) as search:
        for seen, found in zip(map_questions(context, static, base=CANDIDATES), search.each(), strict=True):
            rows.add(seen, "rules", seen.signals)
            rows.add(seen, search.name, search_signals(seen.gold, seen.last, found) if found and seen.gold else ())
            context.accept(seen.source)
    rows.flush()


def _static(several: frozenset[str], rows: QuestionRows) -> _Seen:
    """Check a question, in a worker."""
    question = rows.question
    if not is_checked(question):
        return _Seen(question.question_id, question.source)
    return _seen(question, rules.decompose(question), several)


def _seen(question: Question, hops: Sequence[SubQuestion], several: frozenset[str]) -> _Seen:
    return _Seen(
        question.question_id,
        question.source,
        static_signals(question, hops, several),
        [paragraph.passage_id for paragraph in question.supporting],
        hops[-1].gold_passage_ids if is_chain(hops) else (),
    )


def _titles(context: StageContext) -> Iterator[str]:
    with pq.ParquetFile(context.inputs[PARAGRAPHS]) as file:
        for batch in file.iter_batches(columns=["title"]):
            yield from batch.column(0).to_pylist()


class _Search:
    """The first engine that finds words in the run's own passages; without one, nothing is found."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._engine: Any = None
        self._turn = asyncio.Lock()
        lexical = next((engine for engine in context.engines if isinstance(engine.config, TextConfig)), None)
        if lexical:  # never one that may have to be paid for
            service = Service(workers=context.service.workers)  # no search of a trajectory: none is recorded
            self._engine = open_engine(lexical, context.inputs[INDEX], service)
            self._ids = self._engine.documents.ids()

    @property
    def name(self) -> str:
        """Return the name of the engine."""
        return self._engine.name if self._engine else ""

    def each(self) -> Iterator[list[str]]:
        """Yield the ids of the first documents that are found for each question."""
        if not self._engine:
            yield from repeat([], sum(map(self._context.count, CANDIDATES)))
            return
        questions = _column(self._context, "question")
        while batch := list(islice(questions, _BATCH)):
            hits = asyncio.run(self._engine.hits(batch, AT_ONCE))
            ids = iter(self._ids.take(pa.array(hits.numbers)).to_pylist())
            for count in hits.counts.tolist():
                yield list(islice(ids, count))

    def close(self) -> None:
        """End what the engine has started."""
        if self._engine:
            asyncio.run(self._engine.close())

    async def documents(self, queries: Sequence[str]) -> list[list[Document]]:
        """Return what is found for each query, best first."""
        if not (self._engine and queries):
            return [[] for _ in queries]
        async with self._turn:
            hits = await self._engine.hits(queries, _TOP)
        return [[self._engine.documents[number] for number, _ in pairs] for pairs in hits.pairs()]


class _Rows:
    """Rows of `checks`, written many at a time."""

    def __init__(self, context: StageContext) -> None:
        self._writer = context.writer(CHECKS)
        self._rows: list[tuple[Any, ...]] = []

    def add(self, seen: _Seen, judge: str, signals: Sequence[Signal]) -> None:
        """Add a row for each signal."""
        about = seen.question_id, seen.source
        self._rows += [(*about, s.check, "", 0, judge, "", None, [], None, s.outcome, s.reason) for s in signals]
        if len(self._rows) >= _WRITE:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        columns = zip(*self._rows, strict=True) if self._rows else repeat((), len(CHECKS.schema))
        arrays = [pa.array(values, field.type) for values, field in zip(columns, CHECKS.schema, strict=False)]
        self._writer.extend(pa.Table.from_arrays(arrays, schema=CHECKS.schema))
        self._rows.clear()


# --- With a model -----------------------------------------------------------------------------------


def _by_model(context: StageContext, config: VerifyConfig) -> None:
    llm = context.model
    assert llm
    several, drawn = names_of_several(_titles(context)), config.drawn(_checked_ids(context))
    prompts = {name: model.Prompt(name, text) for name, text in context.prompts.items()}

    async def by_model(search: _Search, rows: QuestionRows) -> list[Check]:
        question = rows.question
        if not is_checked(question):
            return []
        hops = rules.decompose(question)
        (found,) = await search.documents([question.question])
        seen = _seen(question, hops, several)
        checks = _signals(seen, search.name, [document.id for document in found]) if config.signals else []
        if drawn is not None and question.question_id not in drawn:
            return checks
        stop = () if config.whole(question.question_id) else config.stop
        failed = next((check for check in failures(checks) if check in stop), None)
        if failed:
            return [*checks, *(_unasked(question, check, failed) for check in READINGS)]
        case = await _case(question, hops, found, search)
        first = context.sample(question.question_id) * config.samples
        readings = await model.prove(llm, prompts, case, config, samples=config.samples, first=first, stop=stop)
        return [*checks, *readings]

    with closing(_Search(context)) as search:
        ask_for_each_question(context, partial(by_model, search), base=CANDIDATES)


def _signals(seen: _Seen, engine: str, found: Sequence[str]) -> list[Check]:
    searched = search_signals(seen.gold, seen.last, found) if found else []
    judged = [*zip(repeat("rules"), seen.signals, strict=False), *zip(repeat(engine), searched, strict=False)]
    return [_check(seen, judge, *signal) for judge, signal in judged]


def _check(about: _Seen | Question, judge: str, check: str, outcome: str, reason: str) -> Check:
    return Check(
        question_id=about.question_id,
        source=about.source,
        check=check,
        part="",
        sample=0,
        judge=judge,
        answer="",
        right=None,
        quotes=[],
        quotes_valid=None,
        outcome=outcome,
        reason=reason,
    )


def _unasked(question: Question, check: str, failed: str) -> Check:
    return _check(question, "", check, UNASKED, f"{failed} had failed")


async def _case(
    question: Question,
    hops: Sequence[SubQuestion],
    found: Sequence[Document],
    search: _Search,
) -> model.Case:
    """Return a question with its gold paragraphs, and the best other passages of all its searches, in turn.

    What is found for a hop may answer it otherwise. So the hops that need it are searched for with its names too.
    """
    gold = [Document(p.passage_id, p.title, p.text) for p in question.supporting]
    known = {document.id for document in gold}
    of_hops = await search.documents([hop.sub_question for hop in hops])
    others = [[document for document in of if document.id not in known] for of in (found, *of_hops)]
    leads = [
        (lead, f"{_REFERENCE.sub('', hop.template)} {_names(lead, hops[needed - 1].sub_question)}")
        for hop in hops
        for needed in hop.depends_on
        for lead in others[needed][:_FOLLOWED]
    ]
    led = [
        [document for document in of if document.id not in {lead.id, *known}]
        for (lead, _), of in zip(leads, await search.documents([query for _, query in leads]), strict=True)
    ]
    in_turn = chain.from_iterable(zip_longest(*others, *led))
    around = {document.id: document for document in in_turn if document}
    return model.Case(question, gold, others[0], list(around.values())[: model.AROUND])


def _names(document: Document, question: str) -> str:
    """Return the capitalised words and numbers that a document adds to a question; its whole text if there are none."""
    asked = set(_WORD.findall(f"{document.title} {question}"))
    said = (word for word in _WORD.findall(document.text) if word[0].isupper() or word[0].isdigit())
    return " ".join(word for word in dict.fromkeys(said) if word not in asked) or document.text


def _column(context: StageContext, name: str) -> Iterator[str]:
    """Yield a column of all candidates."""
    for table in CANDIDATES:
        with pq.ParquetFile(context.inputs[table]) as file:
            for batch in file.iter_batches(columns=[name]):
                yield from batch.column(0).to_pylist()


def _checked_ids(context: StageContext) -> Iterator[str]:
    """Yield the ids of the questions that are checked: `is_checked`, by columns."""
    for table in CANDIDATES:
        columns = ["question_id", "answerable", *(["status"] if table is COMPOSED else [])]
        with pq.ParquetFile(context.inputs[table]) as file:
            for batch in file.iter_batches(columns=columns):
                asked = batch.filter(pc.field("answerable"))
                rows = asked.filter(pc.field("status") == KEPT) if table is COMPOSED else asked
                yield from rows.column("question_id").to_pylist()


STAGE = Stage(
    name="verify",
    doc="check whether each question needs its hops",
    reads=(*CANDIDATES, PARAGRAPHS, INDEX),
    writes=(CHECKS,),
    config=VerifyConfig,
    run=verify,
    version=2,
    needs=Needs.OWN_ENGINES,
)

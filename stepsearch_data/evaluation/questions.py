"""What is asked in an evaluation: a split of a store, or files: as builds read them, and any that come with answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from stepsearch_data.core.errors import ConfigError, RowRejected, SourceError
from stepsearch_data.exports.reading import split_names
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.rows import Question
from stepsearch_data.schemas.tables import QUALITY, TRAJECTORIES
from stepsearch_data.sources.asked import asker
from stepsearch_data.sources.record import Record
from stepsearch_data.sources.source import Source, check_kind, parse_source
from stepsearch_data.sql import connect
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.data import load_examples, subsample, to_task
from stepsearch_data.trainer.search_env import Task

_FIRST = 5  # rows that must agree that a file was called by the wrong kind's name


@dataclass
class Questions:
    """The questions of an evaluation, always in the same order.

    There are at most `total`, 0 if unknown. `digest` identifies files; it is "" for a store, whose builds may add
    questions. Reading `tasks` adds to `rejects` each row that cannot be asked, and raises StepSearchError where there
    is none that can.
    """

    name: str
    total: int
    digest: str
    tasks: Iterable[Task]
    rejects: list[str]


def questions_of_store(store: Store, split: str | None, template: Template, limit: int | None) -> Questions:
    """Ask the complete trajectories of a split, or of all, that passed the gates; `limit` of each source, drawn.

    Raises ConfigError for a split that is not there, SourceError for one without questions, StoreError.
    """

    def tasks() -> Iterator[Task]:
        examples = load_examples(store, split, allow_templates=True)  # nothing is learnt of them
        for example in examples if limit is None else subsample(examples, limit, each_source=True):
            yield to_task(example, template)

    return Questions(f"{store.name}:{split or 'all'}", _count(store, split, limit), "", tasks(), [])


def _count(store: Store, split: str | None, limit: int | None) -> int:
    with store.reading() as manifest:
        store.tables(manifest, TRAJECTORIES)
        known = split_names(store, manifest)
        if split not in {None, *known}:
            raise ConfigError(f"the store has no split {split}", f"it has {' and '.join(known)}")
        gates = manifest.output(QUALITY.name) is not None
        passed = " JOIN quality USING (question_id) WHERE passed AND split IN $splits AND" if gates else " WHERE"
        sql = f"SELECT trajectories.source, count(*) FROM trajectories{passed} complete GROUP BY ALL"
        with connect(store, manifest, query=sql) as connection:
            splits = {"splits": known if split is None else [split]}
            rows = connection.sql(sql, params=splits if gates else {}).fetchall()
    total = sum(min(int(count), limit or count) for _, count in rows)
    if not total:
        if split is None:
            raise SourceError(f"{store.name} holds no question that passed the gates", "see why: stepsearch-data audit")
        raise SourceError(
            f"the split {split} of {store.name} holds no question",
            "another with --split, or build the store with --set quality.validation=0.1",
        )
    return total


def questions_of_files(
    texts: Sequence[str], template: Template, limit: int | None, id_aliases: Path | None
) -> Questions:
    """Ask the questions of files, `KIND=FILE` each; the first `limit` of each file.

    `id_aliases` is a table of other names, if it is not beside the file. Rows on the Hub are not counted.
    Raises ConfigError, SourceError.
    """
    files = [replace(parse_source(text, "--questions", asked=True), id_aliases=id_aliases) for text in texts]
    total = sum(1 for file in files if not file.is_hub for _ in islice(file.records(), limit))
    rejects: list[str] = []
    tasks = chain.from_iterable(_tasks(file, template, limit, rejects) for file in files)
    return Questions(" ".join(texts), total, " ".join(file.digest() for file in files), tasks, rejects)


def _tasks(file: Source, template: Template, limit: int | None, rejects: list[str]) -> Iterator[Task]:
    """Yield the questions of a file. Raises SourceError for one of another kind, or without any question."""

    def reject(record: Record, reason: str) -> None:
        rejects.append(f"{file.location}, row {record.position}: {reason}")

    records, earlier = file.records(), len(rejects)
    first = list(islice(records, _FIRST))
    check_kind(file, first, "--questions")
    parse, asked = asker(file, reject), 0
    for record in chain(first, records):
        try:
            question = parse(record)
        except RowRejected as reason:
            reject(record, str(reason))
            continue
        if question:  # not a document that belongs to no question
            yield _to_task(question, template)
            asked += 1
            if asked == limit:
                return
    if not asked:
        why = rejects[earlier] if len(rejects) > earlier else "it holds no row"
        raise SourceError(f"{file.location} holds no question of {file.kind}: {why}", "is it the right file?")


def _to_task(question: Question, template: Template) -> Task:
    return Task(
        id=question.question_id,
        question=question.question,
        prompt=template.opening(question.question),
        answers=(question.answer, *question.answer_aliases),
        support_docs=tuple(Paragraph(gold.title, gold.text) for gold in question.supporting),
        source=question.source,
        hops=question.hops,
    )

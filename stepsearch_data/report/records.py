"""Trajectories as they are looked at: everything that the store knows of one, put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow.parquet as pq

from stepsearch_data.pipeline.questions import QuestionRows, by_question
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report import shapes
from stepsearch_data.report.rollouts import NONE, Rollouts, kept
from stepsearch_data.report.segments import segments
from stepsearch_data.schemas.rows import EngineVote, Mark, RetrievedDocument, Round, Vote
from stepsearch_data.schemas.tables import (
    ENGINE_VOTES,
    HITS,
    PASSAGES,
    QUALITY,
    QUERIES,
    QUESTIONS,
    ROLLOUTS,
    ROUNDS,
    TRAJECTORIES,
    VOTES,
    Table,
)
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.passages import Passages

Shown = Callable[[RetrievedDocument], Paragraph]
"""Gives a document's title and text."""
Marks = Mapping[str, Mark]
"""What a reader says, by question."""
NO_MARKS: Marks = {}
Verdict = Literal["chosen", "kept", "rejected", "waiting", "not voted"]

_ALWAYS = (TRAJECTORIES, ROUNDS, QUERIES)
_WHERE_BUILT = (VOTES, ENGINE_VOTES, QUALITY, ROLLOUTS)
_VERDICTS = ("chosen", "kept", "waiting", "not voted", "rejected")  # in the order in which a hop's queries are shown


def tables_of(store: Store, manifest: Manifest) -> dict[Table[Any], Path]:
    """Return the tables that records are made from, `QUESTIONS` and `PASSAGES` apart, and their files."""
    built = [table for table in _WHERE_BUILT if manifest.output(table.name)]
    found = store.tables(manifest, *_ALWAYS, *built)
    hits = manifest.output(HITS.name)
    if hits and _has_addresses(path := store.table(HITS, hits)):  # else they have nothing that rounds do not say
        found[HITS] = path
    return found


def records(
    store: Store, manifest: Manifest, rollouts: Rollouts = NONE, only: Collection[str] | None = None
) -> Iterator[shapes.Record]:
    """Yield all trajectories, or those of some questions, in the order of the store, few of them in memory."""
    if manifest.output(TRAJECTORIES.name) is None:
        return
    tables = tables_of(store, manifest)
    paths = store.tables(manifest, QUESTIONS, PASSAGES)
    passages, marks = Passages(paths[PASSAGES]), store.marks()
    for rows in by_question({**paths, **tables}, *tables):
        if rows[TRAJECTORIES] and (only is None or rows.question.question_id in only):
            yield record(rows, passages.shown, rollouts, marks)


def record(rows: QuestionRows, shown: Shown, rollouts: Rollouts = NONE, marks: Marks = NO_MARKS) -> shapes.Record:
    """Make the record of a question: its trajectory, and rollouts of policies. `rows` are those of `tables_of`."""
    whole = rows[TRAJECTORIES][0]
    rounds = rows[ROUNDS]
    quality = next(iter(rows.get(QUALITY)), None)
    return {
        "id": whole.question_id,
        "question": whole.question,
        "answer": whole.answer,
        "aliases": whole.answer_aliases,
        "source": whole.source,
        "type": whole.question_type,
        "hops": whole.hops,
        "split": quality.split if quality else "",
        "passed": quality.passed if quality else None,
        "complete": whole.complete,
        "answerable": whole.answerable,
        "difficulty": quality.difficulty if quality else "",
        "flags": quality.flags if quality else [],
        "reasons": quality.reasons if quality else [],
        "key_reward": whole.key_reward,
        "answer_reward": whole.answer_reward,
        "gold": [(paragraph.title, paragraph.text) for paragraph in rows.question.supporting],
        "segments": segments(whole.rollout, len(rounds)),
        "rounds": [_round(step, rows, shown) for step in rounds],
        "rollouts": rollouts.of(whole.question_id, kept(rows)),
        "mark": shown_mark(marks.get(whole.question_id)),
    }


def shown_mark(said: Mark | None) -> shapes.Mark:
    """Return what a reader says, empty where nobody has said anything."""
    words = {"mark": said.mark, "note": said.note} if said else {"mark": "", "note": ""}
    return cast("shapes.Mark", words)


def _round(step: Round, rows: QuestionRows, shown: Shown) -> shapes.RecordRound:
    hits = rows.get(HITS)
    addresses = {(hit.engine, hit.rank): hit.url for hit in hits if hit.query_id == step.query_id}
    return {
        "round": step.round,
        "hop": step.hop,
        "role": step.role,
        "sub_question": step.sub_question,
        "sub_answer": step.sub_answer,
        "query": step.query,
        "kept": step.kept,
        "gold_rank": step.gold_rank,
        "gain": step.information_gain,
        "redundancy": step.redundancy_penalty,
        "reward": step.step_reward,
        "documents": [_document(each, shown(each), addresses.get((each.engine, each.rank))) for each in step.documents],
        "queries": _queries(step, rows),
    }


def _document(document: RetrievedDocument, paragraph: Paragraph, url: str | None) -> shapes.RecordDocument:
    return {
        "rank": document.rank,
        "title": paragraph.title,
        "text": paragraph.text,
        "url": url,
        "engine": document.engine,
        "score": document.score,
        "gold": document.is_gold,
    }


def _queries(step: Round, rows: QuestionRows) -> list[shapes.Query]:
    """List all queries of the round's hop, the chosen one first, then by verdict."""
    votes = {vote.query_id: vote for vote in rows.get(VOTES)}
    engine_votes = rows.get(ENGINE_VOTES)
    queries = [query for query in rows[QUERIES] if query.hop == step.hop]
    found: list[shapes.Query] = []
    for query in queries:
        vote = votes.get(query.query_id)
        found.append(
            {
                "query": query.query,
                "method": query.method,
                "verdict": "chosen" if query.query_id == step.query_id else _verdict(vote),
                "gold_rank": vote.gold_rank if vote else None,
                "engine_votes": [_engine_vote(vote) for vote in engine_votes if vote.query_id == query.query_id],
            }
        )
    return sorted(found, key=lambda query: _VERDICTS.index(query["verdict"]))


def _verdict(vote: Vote | None) -> Verdict:
    if vote is None:
        return "not voted"
    return "kept" if vote.kept else "waiting" if vote.waiting else "rejected"


def _engine_vote(vote: EngineVote) -> shapes.EngineVote:
    return {
        "engine": vote.engine,
        "answered": vote.answered,
        "valid": vote.valid,
        "gold_rank": vote.gold_rank,
    }


def _has_addresses(path: Path) -> bool:
    """Tell from the file's statistics whether a document has an address."""
    metadata = pq.read_metadata(path)
    at = metadata.schema.names.index("url")
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    counts = (group.column(at).statistics.null_count - group.num_rows for group in groups)
    return any(counts)

"""Making examples from a store: its tables are read side by side, one question at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from stepsearch_data.pipeline.questions import QuestionRows, by_question
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas import tables
from stepsearch_data.schemas.rows import Round, Trajectory
from stepsearch_data.templates.examples import Example, Search
from stepsearch_data.templates.passages import Passages

_ALWAYS = (tables.SUB_QUESTIONS, tables.TRAJECTORIES, tables.ROUNDS)
_FOR_REJECTED = (tables.QUERIES, tables.VOTES, tables.HITS)


def examples(store: Store, manifest: Manifest, *, everything: bool, with_rejected: bool) -> Iterator[Example]:
    """Yield the examples of a store, in the order of its questions. Raises StoreError for an incomplete store.

    By default these are complete trajectories that passed the quality gates, if the store has gates. `everything`
    takes all trajectories. One without a split then gets that of its group, else `train`.
    """
    related = (*_ALWAYS, *(_FOR_REJECTED if with_rejected else ()))
    inputs = store.tables(manifest, tables.QUESTIONS, tables.PASSAGES, *related)
    passages = Passages(inputs[tables.PASSAGES])
    splits = _splits(store, manifest, everything=everything)
    counts: Counter[str] = Counter()
    for rows in by_question(inputs, *related):
        found = rows[tables.TRAJECTORIES]
        split = "train" if splits is None else splits.get(rows.question.question_id, "train" if everything else "")
        if found and split and (everything or found[0].complete):
            yield _example(counts[split], split, found[0], rows, passages)
            counts[split] += 1


def split_names(store: Store, manifest: Manifest) -> list[str]:
    """Return the splits of a store, only `train` before the quality gates have run."""
    return sorted({"train", *(_splits(store, manifest, everything=True) or {}).values()})


def _splits(store: Store, manifest: Manifest, *, everything: bool) -> dict[str, str] | None:
    """Return the split of each question that passed the gates, by its id; None without gates.

    `everything` adds the others. They get the split of their group, so that no gold paragraph is in two splits, or
    `train` where no question of the group has a split.
    """
    output = manifest.output(tables.QUALITY.name)  # optional in a store
    if output is None:
        return None
    names = ("question_id", "split", "split_group", "passed")
    table = pq.read_table(store.table(tables.QUALITY, output), columns=list(names))
    rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    if not everything:
        return {key: split for key, split, _, passed in rows if split and passed}
    of_group = {group: split for _, split, group, _ in rows if split}
    return {key: split or of_group.get(group, "train") for key, split, group, _ in rows}


def _example(index: int, split: str, trajectory: Trajectory, rows: QuestionRows, passages: Passages) -> Example:
    hops, rounds = rows[tables.SUB_QUESTIONS], rows[tables.ROUNDS]
    gold = {hop.hop: tuple(passages[passage_id] for passage_id in hop.gold_passage_ids) for hop in hops}
    rejected = _rejected(rounds, rows, passages)
    return Example(
        index=index,
        split=split,
        question_id=trajectory.question_id,
        source=trajectory.source,
        question=trajectory.question,
        answers=(trajectory.answer, *trajectory.answer_aliases),
        hops=len(hops),
        steps=tuple(passages.step(step, gold[step.hop], tuple(rejected[step.hop])) for step in rounds),
    )


def _rejected(rounds: Sequence[Round], rows: QuestionRows, passages: Passages) -> defaultdict[int, list[Search]]:
    """Return by hop the queries that the vote rejected and no round has, each with its first engine's documents."""
    shown = max((len(step.documents) for step in rounds), default=0)
    used = {step.query_id for step in rounds}
    votes = {vote.query_id: vote for vote in rows.get(tables.VOTES)}
    found: defaultdict[int, list[Search]] = defaultdict(list)
    for query in rows.get(tables.QUERIES):
        vote = votes[query.query_id]
        if query.query_id not in used and not vote.kept and not vote.waiting:
            hits = [hit for hit in rows[tables.HITS] if hit.query_id == query.query_id and hit.rank]
            first = [hit for hit in hits if hit.engine == hits[0].engine]
            found[query.hop].append(passages.search(query.query, first[:shown]))
    return found

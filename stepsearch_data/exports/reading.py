"""Making examples from a store: its tables are read side by side, one question at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.core.intervals import Passes
from stepsearch_data.pipeline.passes import KEEP_SOME, count_passes
from stepsearch_data.pipeline.questions import QuestionRows, by_question
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.rewards import own_turns, read
from stepsearch_data.schemas import tables
from stepsearch_data.schemas.rows import Question, Rollout, RolloutTurn, Round, Trajectory
from stepsearch_data.templates.examples import Example, Paragraph, Preferred, Search, Step
from stepsearch_data.templates.passages import Passages

_ALWAYS = (tables.SUB_QUESTIONS, tables.TRAJECTORIES, tables.ROUNDS)
_TAUGHT = (tables.ROLLOUTS, tables.ROLLOUT_TURNS, tables.PICKS, tables.PREFERENCES)
_FOR_REJECTED = (tables.QUERIES, tables.VOTES, tables.HITS)
_PLAYED = (tables.ROLLOUTS, tables.ROLLOUT_TURNS)


@dataclass(frozen=True)
class Played:
    """A kept rollout with its question and its turns. `passes` are all rollouts of its policy on the question."""

    split: str
    question: Question
    rollout: Rollout
    turns: tuple[RolloutTurn, ...]
    passes: Passes


def played(store: Store, manifest: Manifest, *, everything: bool) -> Iterator[Played]:
    """Yield the kept rollouts, in the order of the questions.

    They are of questions that passed the quality gates, if the store has gates. `everything` takes all, in splits as
    in `examples`. Raises StoreError for a store that keeps none.
    """
    if not all(manifest.output(table.name) for table in _PLAYED):
        raise StoreError("the store keeps no rollouts", KEEP_SOME)
    inputs = store.tables(manifest, tables.QUESTIONS, *_PLAYED)
    splits = _splits(store, manifest, everything=everything)
    for rows in by_question(inputs, *_PLAYED):
        if split := _split(rows, splits, everything=everything):
            yield from plays(rows, split)


def plays(rows: QuestionRows, split: str) -> Iterator[Played]:
    """Yield the rollouts of a question."""
    rollouts = rows.get(tables.ROLLOUTS)
    counts = Counter(rollout.policy for rollout in rollouts)
    right = Counter(rollout.policy for rollout in rollouts if rollout.right)
    turns = _turns(rows)
    for rollout in rollouts:
        own = tuple(turns[rollout.policy, rollout.sample])
        yield Played(split, rows.question, rollout, own, Passes(right[rollout.policy], counts[rollout.policy]))


def _turns(rows: QuestionRows) -> defaultdict[tuple[str, int], list[RolloutTurn]]:
    """Group the turns of a question by policy and sample: once, as there may be 10,000 samples."""
    turns: defaultdict[tuple[str, int], list[RolloutTurn]] = defaultdict(list)
    for turn in rows.get(tables.ROLLOUT_TURNS):
        turns[turn.policy, turn.sample].append(turn)
    return turns


def taken(store: Store, manifest: Manifest, *, with_passes: bool) -> Iterator[Example]:
    """Yield the teacher's trajectories that `pick` has taken, in the order of the questions.

    `with_passes` is as in `examples`. Raises StoreError.
    """
    if not all(manifest.output(table.name) for table in _TAUGHT):
        raise StoreError(
            "the store has no trajectories of a teacher", "stepsearch-data build --set pick.teacher=POLICY"
        )
    inputs = store.tables(manifest, tables.QUESTIONS, *_TAUGHT)
    splits = _splits(store, manifest, everything=False) or {}
    passes = _passes(store, manifest) if with_passes else {}
    counts: Counter[str] = Counter()
    for rows in by_question(inputs, *_TAUGHT):
        picks = {(pick.policy, pick.sample) for pick in rows[tables.PICKS] if pick.taken}
        turns = _turns(rows) if picks else {}
        for rollout in rows[tables.ROLLOUTS]:
            key = (rollout.policy, rollout.sample)
            if key in picks:
                split = splits[rollout.question_id]
                example = _taught(counts[split], split, rollout, turns.get(key, ()), rows)
                yield replace(example, passes=passes.get(example.question_id))
                counts[split] += 1


def count_taken(store: Store, manifest: Manifest) -> int:
    """Count the teacher's trajectories that `pick` has taken."""
    output = manifest.output(tables.PICKS.name)
    path = store.table(tables.PICKS, output) if output else None
    return pq.read_table(path, columns=["taken"], filters=[("taken", "=", True)]).num_rows if path else 0


def _taught(index: int, split: str, rollout: Rollout, turns: Sequence[RolloutTurn], rows: QuestionRows) -> Example:
    """Return a rollout as an example: the policy's own words, and the documents as it was shown them."""
    question, parsed = rows.question, read(rollout.response, observations=rollout.places)
    *wrote, final = own_turns(parsed, rollout.places)
    steps = [
        Step(
            hop=turn.turn,
            role="gold",
            sub_question="",
            found="",
            search=Search(
                turn.query,
                tuple(Paragraph(document.title, document.span.text) for document in found.documents),
                good=turn.new_gold > 0,
                text=text,
            ),
            keys=(turn.query,),
        )
        for turn, found, text in zip(turns, parsed.rounds, wrote, strict=True)
    ]
    return Example(
        index=index,
        split=split,
        question_id=question.question_id,
        source=question.source,
        question=question.question,
        answers=(question.answer, *question.answer_aliases),
        hops=question.hops,
        steps=tuple(steps),
        final=final,
        preferred=tuple(
            Preferred(each.turn, each.context, each.chosen, each.rejected)
            for each in rows[tables.PREFERENCES]
            if (each.policy, each.chosen_sample) == (rollout.policy, rollout.sample)
        ),
    )


def examples(
    store: Store, manifest: Manifest, *, everything: bool, with_rejected: bool, with_passes: bool = False
) -> Iterator[Example]:
    """Yield the examples of a store, in the order of its questions. Raises StoreError for an incomplete store.

    By default these are complete trajectories that passed the quality gates, if the store has gates. `everything`
    takes all trajectories. One without a split then gets that of its group, else `train`. `with_passes` counts the
    rollouts of each question, and raises ConfigError where it is not clear which.
    """
    related = (*_ALWAYS, *(_FOR_REJECTED if with_rejected else ()))
    inputs = store.tables(manifest, tables.QUESTIONS, tables.PASSAGES, *related)
    passages = Passages(inputs[tables.PASSAGES])
    splits = _splits(store, manifest, everything=everything)
    passes = _passes(store, manifest) if with_passes else {}
    counts: Counter[str] = Counter()
    for rows in by_question(inputs, *related):
        found, split = rows[tables.TRAJECTORIES], _split(rows, splits, everything=everything)
        if found and split and (everything or found[0].complete):
            example = _example(counts[split], split, found[0], rows, passages)
            yield replace(example, passes=passes.get(example.question_id))
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


def _split(rows: QuestionRows, splits: dict[str, str] | None, *, everything: bool) -> str:
    """Return the split of a question, of those that `_splits` has found; empty where it has none."""
    return "train" if splits is None else splits.get(rows.question.question_id, "train" if everything else "")


def _passes(store: Store, manifest: Manifest) -> dict[str, Passes]:
    """Count the rollouts of each question, of the policy that the quality gates look at.

    Raises StoreError for a store that keeps none, ConfigError where the gates look at a file instead, whose scores are
    no counts.
    """
    output, quality = manifest.output(tables.ROLLOUTS.name), manifest.stages.get("quality")
    if not output:
        raise StoreError("the store keeps no rollouts", KEEP_SOME)
    fingerprint = quality.fingerprint if quality else {}
    if any(name.startswith("rollouts ") for name in fingerprint.get("files", ())):
        raise ConfigError("the pass rates of this store are those of a file", "build it without quality.rollouts")
    policy = fingerprint.get("config", {}).get("policy", "")
    return count_passes(store.table(tables.ROLLOUTS, output), policy)


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

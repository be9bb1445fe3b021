"""What policies did with the store's questions, shown beside its own trajectories."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.core.files import open_regular
from stepsearch_data.core.lazy import Lazy
from stepsearch_data.core.text import joined_lines
from stepsearch_data.pipeline.kept import kept as kept_rows
from stepsearch_data.pipeline.questions import QuestionRows
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report import shapes
from stepsearch_data.report.segments import segments, segments_of_calls
from stepsearch_data.rewards import Scores, read, score_rollout
from stepsearch_data.rewards.rollout import Rollout
from stepsearch_data.schemas.rollouts import RolloutRow
from stepsearch_data.schemas.rows import Rollout as Stored
from stepsearch_data.schemas.tables import ROLLOUTS, ROUNDS
from stepsearch_data.sources.files import LONGEST_ROW
from stepsearch_data.sources.rollouts import policy_file, read_rollout

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")


class Tally(NamedTuple):
    """What a policy did with a question, over its rollouts."""

    rollouts: int
    right: int  # of them
    f1: float  # this and what follows are sums
    keys: float | None  # None where not all of them are scored
    steps: float  # Σ (G - P)
    searches: int
    formatted: int

    @property
    def is_right(self) -> bool:
        """Whether most of its rollouts are right."""
        return 2 * self.right > self.rollouts


def summed(tallies: Iterable[Tally]) -> Tally:
    """Add tallies up."""
    sums: Iterator[Any] = (None if None in values else sum(values) for values in zip(*tallies, strict=True))
    return Tally(*sums)


def _held_columns() -> list[pl.Expr]:
    """Return a tally's numbers as the table of rollouts has them."""
    named = ("right", "f1", "information_gain", "redundancy_penalty", "searches", "format_ok")
    right, f1, gain, penalty, searches, formatted = (pl.col(name).sum() for name in named)
    keys = pl.lit(None, pl.Float64)
    return [
        expression.alias(name)
        for name, expression in zip(
            Tally._fields, (pl.len(), right, f1, keys, gain - penalty, searches, formatted), strict=True
        )
    ]


Kept = Sequence[tuple[RolloutRow, Stored]]
"""Rollouts of a question that the store keeps, each as it is scored and as it is stored."""


class Rollouts:
    """Rollouts by question, from JSON Lines as `eval` writes them; only their places are kept in memory.

    A file is given as `POLICY=FILE`, or as a file or a folder of `eval`, whose name is then the policy's. They are
    scored against what their rows hold, as `score` does with the paper's rewards; those that a store keeps are as right
    as it says. Raises ConfigError, SourceError.
    """

    def __init__(self, given: Sequence[str] = ()) -> None:
        self._files = dict(policy_file(each) for each in given)
        self._kept: list[str] = []
        self._held: dict[str, dict[str, Tally]] = {}  # of those that the store keeps, as it says
        self._tallies: dict[str, Mapping[str, Tally]] = {}  # of those that were scored here
        if len(self._files) < len(given):
            raise ConfigError("two files of rollouts have one name", "name them: --rollouts NAME=FILE")
        self._places: defaultdict[str, list[tuple[str, int, int]]] = defaultdict(list)
        self._unread: Counter[str] = Counter()
        for policy, path in self._files.items():
            self._scan(policy, path)

    def _scan(self, policy: str, path: Path) -> None:
        at = 0
        try:
            with open_regular(path) as file:
                while line := file.readline(LONGEST_ROW):
                    row = read_rollout(line)
                    if row and row.id:
                        self._places[row.id].append((policy, at, len(line)))
                    elif line.strip():
                        self._unread[policy] += 1
                    at += len(line)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error

    def with_kept(self, store: Store, manifest: Manifest) -> Rollouts:
        """Return these rollouts with those that the store keeps, each of which is scored when it is shown.

        Until then, their tallies are by what the store says of them, which knows no reference queries.
        Raises ConfigError where two policies have one name.
        """
        output = manifest.output(ROLLOUTS.name)
        if not (output and output.rows and manifest.output(ROUNDS.name)):
            return self
        table = pl.scan_parquet(store.tables(manifest, ROLLOUTS)[ROLLOUTS], glob=False)
        policies = table.select(pl.col("policy").unique(maintain_order=True)).collect()["policy"].to_list()
        if twice := self._files.keys() & policies:
            raise ConfigError(f"the store keeps rollouts of {min(twice)} too", "name them: --rollouts NAME=FILE")
        held: defaultdict[str, dict[str, Tally]] = defaultdict(dict)
        for question_id, policy, *sums in (
            table.group_by("question_id", "policy", maintain_order=True).agg(*_held_columns()).collect().rows()
        ):
            held[question_id][policy] = Tally(*sums)
        both = copy(self)
        vars(both).update(_kept=policies, _held=held, _tallies={})
        return both

    def of(self, question_id: str, kept: Kept = ()) -> list[shapes.Rollout]:
        """Return what each policy did with a question: those that the store keeps, then in the order of the files."""
        return [_shown(*judged) for judged in self._judge(question_id, kept)]

    def _judge(self, question_id: str, kept: Kept = ()) -> list[tuple[str, RolloutRow, Rollout, Scores]]:
        """Score the rollouts of a question, and keep their tallies."""
        found = [(stored.policy, row, *scored) for row, stored in kept for scored in _scored(row, stored)]
        found += [(policy, row, *scored) for policy, row in self._rows(question_id) for scored in _scored(row)]
        tallies: defaultdict[str, list[Tally]] = defaultdict(list)
        for policy, _, rollout, scores in found:
            tallies[policy].append(_tally(rollout, scores))
        self._tallies[question_id] = {policy: summed(each) for policy, each in tallies.items()}
        return found

    def _rows(self, question_id: str) -> Iterator[tuple[str, RolloutRow]]:
        for policy, at, length in self._places.get(question_id, ()):
            with open(self._files[policy], "rb") as file:
                file.seek(at)
                row = read_rollout(file.read(length))
            if row:
                yield policy, row

    @property
    def policies(self) -> list[str]:
        """Their names: of those that the store keeps, then in the order of the files."""
        return [*self._kept, *self._files]

    def tally(self, question_id: str, kept: Kept = ()) -> Mapping[str, Tally]:
        """Return what each policy that has rollouts of a question did with it; `of` has perhaps scored them already."""
        if question_id not in self._tallies:
            self._judge(question_id, kept)
        return {**self._held.get(question_id, {}), **self._tallies[question_id]}

    def right(self, known: Collection[str]) -> dict[str, list[bool | None]]:
        """Say of the known questions whether each policy is right; None where it has no rollout."""
        found = {}
        for question_id in (each for each in {**self._held, **self._places} if each in known):
            tallies = self.tally(question_id)
            found[question_id] = [tallies[policy].is_right if policy in tallies else None for policy in self.policies]
        return found

    def notes(self, known: Collection[str]) -> list[str]:
        """Say what of the files is not shown."""
        foreign = Counter(
            policy for question, places in self._places.items() if question not in known for policy, *_ in places
        )
        return [
            *(f"{policy}: rollouts of questions that have no trajectory here: {n:,}." for policy, n in foreign.items()),
            *(f"{policy}: lines that are not rollouts with an id: {n:,}." for policy, n in self._unread.items()),
        ]


NONE = Rollouts()


def kept(rows: QuestionRows) -> list[tuple[RolloutRow, Stored]]:
    """Return the rollouts of a question that the store keeps, with what they are scored against."""
    return [(RolloutRow.model_validate(fields), stored) for fields, stored in kept_rows(rows)]


def _scored(row: RolloutRow, stored: Stored | None = None) -> Iterator[tuple[Rollout, Scores]]:
    golds = [paragraph.paragraph_text for paragraph in row.support_docs]
    for response in row.responses:
        rollout = read(response, observations=row.observations)
        scores = score_rollout(rollout, row.target, row.search_keys, golds)
        if stored:  # by its source's script, and of an unanswerable question against what its file said
            scores = replace(scores, answer_em=int(stored.right), answer_correct=stored.f1)
        yield rollout, scores


def _tally(rollout: Rollout, scores: Scores) -> Tally:
    return Tally(
        1,
        int(scores.answer_em),
        scores.answer_correct,
        scores.search_key_score,
        sum(scores.step_scores),
        len(rollout.answered),
        int(scores.format_ok),
    )


def _shown(policy: str, row: RolloutRow, rollout: Rollout, scores: Scores) -> shapes.Rollout:
    golds = {joined_lines(paragraph.paragraph_text) for paragraph in row.support_docs}
    rounds = [_round(rollout, at, scores, golds) for at in range(len(rollout.rounds))]
    return {
        "policy": policy,
        "answer": rollout.answer.text if rollout.answer else None,
        "right": bool(scores.answer_em),
        "f1": scores.answer_correct,
        "format_ok": scores.format_ok,
        "answer_reward": scores.score,
        "key_reward": scores.search_key_score,
        "segments": segments(rollout.text, len(rounds), row.observations) or segments_of_calls(rollout),
        "rounds": rounds,
        "golds": len(row.support_docs),
    }


def _round(rollout: Rollout, at: int, scores: Scores, golds: Collection[str]) -> shapes.RecordRound:
    found = rollout.rounds[at]
    gain = scores.information_gain[at] if at < len(scores.information_gain) else 0.0
    penalty = scores.redundancy_penalty[at] if at < len(scores.redundancy_penalty) else 0.0
    return {
        "round": at + 1,
        "hop": 0,
        "role": "gold",
        "sub_question": "",
        "sub_answer": "",
        "query": found.query.text,
        "kept": True,
        "gold_rank": None,
        "gain": gain,
        "redundancy": penalty,
        "reward": gain - penalty,
        "documents": [
            {
                "rank": rank,
                "title": document.title,
                "text": document.span.text,
                "url": None,
                "engine": "",
                "score": None,
                "gold": joined_lines(document.span.text) in golds,
            }
            for rank, document in enumerate(found.documents, start=1)
        ],
        "queries": [],
    }

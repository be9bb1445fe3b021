"""quality: every trajectory → `quality`: the gates' findings, its split, and its difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stepsearch_data.core.arrow import Sent
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.passes import KEEP_SOME, count_passes
from stepsearch_data.pipeline.questions import QuestionRows, map_questions
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.schemas.rows import Quality, Round, Vote
from stepsearch_data.schemas.tables import QUALITY, QUESTIONS, ROLLOUTS, ROUNDS, SUB_QUESTIONS, VERDICTS, VOTES
from stepsearch_data.stages.gates.checks import (
    Case,
    Lengths,
    eval_findings,
    length_findings,
    own_findings,
    usual_lengths,
    verdict_findings,
)
from stepsearch_data.stages.gates.config import GATES, MARKS, PASS_RATE, Finding, QualityConfig
from stepsearch_data.stages.gates.duplicates import Duplicates, Keys, band_keys
from stepsearch_data.stages.gates.outside import EvalData, read_eval, read_rollouts
from stepsearch_data.stages.gates.splits import Groups, split_of, wording

_MEDIUM, _HARD = 0.25, 0.5
_EASIEST, _HARDEST = 2, 4  # hops
_BATCH = 1_000
_COLUMNS = ["question", "answer", "answerable", "supporting.list.element.passage_id"]


class _Examined(NamedTuple):
    """What a trajectory tells alone. `reasons` are by gate, and None where the question has no trajectory."""

    question_id: str
    source: str
    question: str
    answer: str
    answerable: bool
    reasons: dict[str, str] | None
    difficulty: float


def _examine(config: QualityConfig, known: EvalData, lengths: Lengths, rows: QuestionRows) -> _Examined:
    """Examine the trajectory of one question, in a worker."""
    question, reasons, score = rows.question, None, 0.0
    if rows[ROUNDS]:
        case = Case.of(rows)
        findings = [
            *own_findings(case, config),
            *eval_findings(question, known),
            *length_findings(case, lengths),
            *verdict_findings(rows[VERDICTS]),
        ]
        reasons = {finding.gate: finding.reason for finding in reversed(findings)}
        score = difficulty(question.hops, case.rounds, case.votes)
    about = question.question_id, question.source, question.question, question.answer, question.answerable
    return _Examined(*about, reasons, score)


class _Judge:
    """Judges trajectories in order, so that only later copies are duplicates."""

    def __init__(self, context: StageContext, config: QualityConfig) -> None:
        self._config = config
        self._groups, self._duplicates = _survey(context, config)
        self._pass_rates = _pass_rates(context, config)
        self._marked = context.marked

    def judge(self, place: int, seen: _Examined, reasons: dict[str, str]) -> Quality:
        """Return the row of the trajectory whose question is at this place, from 0."""
        config = self._config
        repeats = self._repeats(place, seen)
        rate = self._pass_rates.get(seen.question_id)
        reasons = reasons | {finding.gate: finding.reason for finding in repeats.values()}
        reasons |= self._said(seen.question_id) | self._played(rate)
        flags = [gate for gate in GATES if gate in reasons and config.action(gate) != "off"]
        passed = not any(config.action(gate) == "reject" for gate in flags)
        if passed:
            self._duplicates.keep(place, seen.question_id, seen.question, seen.answer, answerable=seen.answerable)
        group = self._groups.name(place)
        score = with_pass_rate(seen.difficulty, rate)
        return Quality(
            question_id=seen.question_id,
            source=seen.source,
            passed=passed,
            flags=flags,
            reasons=[reasons[gate] for gate in flags],
            split=split_of(group, self._groups.size(place), config) if passed else "",
            split_group=group,
            duplicate_of=next((earlier for earlier, finding in repeats.items() if finding.gate in flags), None),
            difficulty=band(score),
            difficulty_score=score,
            pass_rate=rate,
        )

    def _said(self, question_id: str) -> dict[str, str]:
        """Return what a reader's marks say against a trajectory. A note is the reader's own, and is not told."""
        against = {"drop-bad": "a reader marked it bad", "only-good": "no reader marked it good"}
        wanted = self._config.marks
        fails = wanted != "ignore" and (question_id in self._marked) == (wanted == "drop-bad")
        return {MARKS: against[wanted]} if fails else {}

    def _played(self, rate: float | None) -> dict[str, str]:
        """Return what a policy's rollouts say against a trajectory; nothing where there are none."""
        low, high = self._config.pass_rate or (0.0, 1.0)
        fails = rate is not None and not low <= rate <= high
        return {PASS_RATE: f"{rate:.3g} of the rollouts are right, not {low:g} to {high:g}"} if fails else {}

    def _repeats(self, place: int, seen: _Examined) -> dict[str, Finding]:
        """Return the id of the earlier question that this one repeats, with the gate's finding."""
        same = self._duplicates.same(place, seen.question, answerable=seen.answerable)
        if same:
            return {same: Finding("duplicate", f"the same words as {same}")}
        near = self._duplicates.near(place, seen.question, seen.answer)
        return {near: Finding("near_duplicate", f"much like {near}")} if near else {}


def quality(context: StageContext) -> None:
    """Judge every trajectory, in the order of the questions."""
    config = context.config(QualityConfig)
    judge = _Judge(context, config).judge
    lengths = usual_lengths(context.inputs, config.length_spread)
    examine = partial(_examine, config, read_eval(context, config), lengths)
    for place, seen in enumerate(map_questions(context, examine, SUB_QUESTIONS, VOTES, ROUNDS, VERDICTS)):
        if seen.reasons is not None:
            context.writer(QUALITY).append(judge(place, seen, seen.reasons))
        context.accept(seen.source)


def _pass_rates(context: StageContext, config: QualityConfig) -> dict[str, float]:
    """Return the pass rate of each question: by the file of the settings, else by the rollouts of the store."""
    if config.rollouts or ROLLOUTS not in context.inputs:
        if not config.rollouts and (config.policy or config.pass_rate):
            raise ConfigError("quality.pass_rate needs rollouts", KEEP_SOME)
        return read_rollouts(context, config.rollouts)
    counted = count_passes(context.inputs[ROLLOUTS], config.policy)
    return {question_id: passes.rate for question_id, passes in counted.items()}


def _survey(context: StageContext, config: QualityConfig) -> tuple[Groups, Duplicates]:
    """Return the groups of questions that share gold paragraphs, and a memory for duplicates.

    All loaded questions count. So a question that a gate rejects moves no other question to the other split.
    """
    groups = Groups()
    wordings = [np.empty(0, np.uint64)]
    keys = [band_keys([])]
    with pq.ParquetFile(context.inputs[QUESTIONS]) as file:
        parts = (Sent(pa.Table.from_batches([part])) for part in file.iter_batches(_BATCH, columns=_COLUMNS))
        for words, passages, bands in context.executor(context.count(QUESTIONS)).map(_surveyed, parts):
            groups.add(words, passages)
            wordings.append(words)
            keys.append(bands)
    groups.find()
    return groups, Duplicates(np.concatenate(wordings), np.concatenate(keys), config.near_duplicate_likeness)


def _surveyed(part: Sent) -> tuple[NDArray[np.uint64], list[list[str]], Keys]:
    """Return the hash of each question's wording, its gold passages, and its keys for finding duplicates."""
    rows = part.table.to_pylist()
    words = np.array([wording(row["question"]) for row in rows], np.uint64)
    passages = [[gold["passage_id"] for gold in row["supporting"]] for row in rows]
    return words, passages, band_keys((row["question"], row["answer"], row["answerable"]) for row in rows)


def difficulty(hops: int, rounds: Sequence[Round], votes: Sequence[Vote]) -> float:
    """Return `hops / 2 + search / 4 + queries / 4`, whose three parts lie between 0 and 1.

    - hops: 0 for two or fewer, 0.5 for three, 1 for four or more;
    - search: mean of `1 − 1 / gold_rank` over the gold rounds, 1 where none is shown;
    - queries: share of the question's queries that the vote dropped.
    """
    gold = [round_.gold_rank for round_ in rounds if round_.role == "gold"]
    length = min(max(hops - _EASIEST, 0) / (_HARDEST - _EASIEST), 1.0)
    search = sum(1 - 1 / rank if rank else 1.0 for rank in gold) / len(gold) if gold else 1.0
    dropped = sum(vote.dropped for vote in votes) / len(votes) if votes else 0.0
    return length / 2 + search / 4 + dropped / 4


def with_pass_rate(score: float, pass_rate: float | None) -> float:
    """Return the mean of a difficulty and `1 − pass rate`, or the difficulty where there is no pass rate."""
    return score if pass_rate is None else (score + 1 - pass_rate) / 2


def band(score: float) -> str:
    """Return `easy` below 0.25, `hard` from 0.5 on, else `medium`."""
    return "easy" if score < _MEDIUM else "medium" if score < _HARD else "hard"


STAGE = Stage(
    name="quality",
    doc="judge the trajectories, and split them for training",
    reads=(QUESTIONS, SUB_QUESTIONS, VOTES, ROUNDS, VERDICTS, ROLLOUTS),
    writes=(QUALITY,),
    config=QualityConfig,
    run=quality,
)

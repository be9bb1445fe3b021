"""quality: every trajectory → `quality`: the gates' findings, its split, and its difficulty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import by_question
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.schemas.rows import Quality, Round, Vote
from stepsearch_data.schemas.tables import QUALITY, QUESTIONS, ROUNDS, SUB_QUESTIONS, VOTES
from stepsearch_data.stages.gates.checks import Case, eval_findings, length_findings, own_findings, usual_lengths
from stepsearch_data.stages.gates.config import GATES, Finding, QualityConfig
from stepsearch_data.stages.gates.duplicates import Duplicates
from stepsearch_data.stages.gates.outside import read_eval, read_rollouts
from stepsearch_data.stages.gates.splits import split_of, survey

_MEDIUM, _HARD = 0.25, 0.5
_EASIEST, _HARDEST = 2, 4  # hops


class _Inspector:
    """Judges trajectories in order, so that only later copies are duplicates."""

    def __init__(self, context: StageContext) -> None:
        self._config = context.config(QualityConfig)
        self._groups, keys = survey(context.inputs[QUESTIONS])
        self._duplicates = Duplicates(keys, self._config.near_duplicate_likeness)
        self._lengths = usual_lengths(context.inputs, self._config.length_spread)
        self._known = read_eval(context, self._config)
        self._pass_rates = read_rollouts(context, self._config.rollouts)

    def judge(self, place: int, case: Case) -> Quality:
        """Return the row of the trajectory whose question is at this place, from 0."""
        config, question = self._config, case.question
        reasons = {finding.gate: finding.reason for finding in reversed([*self._findings(case)])}
        repeats = self._repeats(place, case)
        reasons |= {finding.gate: finding.reason for finding in repeats.values()}
        flags = [gate for gate in GATES if gate in reasons and config.action(gate) != "off"]
        passed = not any(config.action(gate) == "reject" for gate in flags)
        if passed:
            self._duplicates.keep(
                place, question.question_id, question.question, question.answer, answerable=question.answerable
            )
        group = self._groups.name(question.question)
        rate = self._pass_rates.get(question.question_id)
        score = difficulty(question.hops, case.rounds, case.votes, rate)
        return Quality(
            question_id=question.question_id,
            source=question.source,
            passed=passed,
            flags=flags,
            reasons=[reasons[gate] for gate in flags],
            split=self._split(group) if passed else "",
            split_group=group,
            duplicate_of=next((earlier for earlier, finding in repeats.items() if finding.gate in flags), None),
            difficulty=band(score),
            difficulty_score=score,
            pass_rate=rate,
        )

    def _findings(self, case: Case) -> Iterator[Finding]:
        yield from own_findings(case, self._config)
        yield from eval_findings(case.question, self._known)
        yield from length_findings(case, self._lengths)

    def _repeats(self, place: int, case: Case) -> dict[str, Finding]:
        """Return the id of the earlier question that this one repeats, with the gate's finding."""
        question = case.question
        same = self._duplicates.same(question.question, answerable=question.answerable)
        if same:
            return {same: Finding("duplicate", f"the same words as {same}")}
        near = self._duplicates.near(place, question.question, question.answer)
        return {near: Finding("near_duplicate", f"much like {near}")} if near else {}

    def _split(self, group: str) -> str:
        config = self._config
        return split_of(
            group,
            self._groups.size(group),
            validation=config.validation,
            largest=config.largest_validation_group,
            seed=config.seed,
        )


def quality(context: StageContext) -> None:
    """Judge every trajectory, in the order of the questions."""
    inspector = _Inspector(context)
    context.meter.expect(context.count(QUESTIONS))
    for place, rows in enumerate(by_question(context.inputs, SUB_QUESTIONS, VOTES, ROUNDS)):
        if rows[ROUNDS]:
            context.writer(QUALITY).append(inspector.judge(place, Case.of(rows)))
        context.accept(rows.question.source)


def difficulty(hops: int, rounds: Sequence[Round], votes: Sequence[Vote], pass_rate: float | None) -> float:
    """Return `hops / 2 + search / 4 + queries / 4`, or with a pass rate, the mean of that and `1 − pass rate`.

    The three parts lie between 0 and 1:

    - hops: 0 for two or fewer, 0.5 for three, 1 for four or more;
    - search: mean of `1 − 1 / gold_rank` over the gold rounds, 1 where none is shown;
    - queries: share of the question's queries that the vote dropped.
    """
    gold = [round_.gold_rank for round_ in rounds if round_.role == "gold"]
    length = min(max(hops - _EASIEST, 0) / (_HARDEST - _EASIEST), 1.0)
    search = sum(1 - 1 / rank if rank else 1.0 for rank in gold) / len(gold) if gold else 1.0
    dropped = sum(vote.dropped for vote in votes) / len(votes) if votes else 0.0
    score = length / 2 + search / 4 + dropped / 4
    return score if pass_rate is None else (score + 1 - pass_rate) / 2


def band(score: float) -> str:
    """Return `easy` below 0.25, `hard` from 0.5 on, else `medium`."""
    return "easy" if score < _MEDIUM else "medium" if score < _HARD else "hard"


STAGE = Stage(
    name="quality",
    doc="judge the trajectories, and split them for training",
    reads=(QUESTIONS, SUB_QUESTIONS, VOTES, ROUNDS),
    writes=(QUALITY,),
    config=QualityConfig,
    run=quality,
)

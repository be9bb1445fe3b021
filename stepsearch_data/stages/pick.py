"""pick: a teacher's rollouts → `picks`, which of them are taken, and `preferences`, each against a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice, takewhile
from typing import Literal, NamedTuple

from pydantic import Field

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.text import mentions
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.passes import KEEP_SOME
from stepsearch_data.pipeline.questions import QuestionRows, for_each_question
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.rewards import Rollout as Parsed
from stepsearch_data.rewards import own_turns, read, warned
from stepsearch_data.schemas.rows import Pick, Preference, Question, Rollout, Row
from stepsearch_data.schemas.tables import PICKS, PREFERENCES, QUALITY, QUESTIONS, ROLLOUTS
from stepsearch_data.stages.rules import leaked

Best = Literal["shortest", "informative"]


class PickConfig(StageConfig):
    """Which rollouts are taken as trajectories of a teacher: none by default, and then a store has no such tables."""

    teacher: str = Field(default="", description="policy of the table rollouts whose trajectories are taken")
    gold: float = Field(
        default=1.0, ge=0, le=1, description="share of the gold passages that its searches must show: less is a guess"
    )
    best: Best = Field(
        default="shortest", description="which of several good ones: of fewest searches, or of most gain per search"
    )
    per_question: int = Field(default=1, ge=1, le=1_000, description="rollouts of a question that are taken at most")


class _Fault(NamedTuple):
    """Why a rollout is not taken: the test that it fails, and in words."""

    test: str
    reason: str


def pick(context: StageContext) -> None:
    """Judge every rollout of the store. Raises ConfigError where it has none."""
    if ROLLOUTS not in context.inputs:
        raise ConfigError("pick.teacher needs rollouts", KEEP_SOME)
    for_each_question(context, partial(_picked, context.config(PickConfig)), QUALITY, ROLLOUTS)


def _picked(config: PickConfig, rows: QuestionRows) -> list[Row]:
    quality = next(iter(rows[QUALITY]), None)
    gate = _gate(quality.reasons if quality else None, passed=bool(quality and quality.passed))
    parsed = [read(rollout.response, observations=rollout.places) for rollout in rows[ROLLOUTS]]
    faults = [gate or _fault(config, rows.question, *each) for each in zip(rows[ROLLOUTS], parsed, strict=True)]
    good = [at for at, fault in enumerate(faults) if fault is None]
    good.sort(key=lambda at: _merit(config.best, rows[ROLLOUTS][at]))
    for at in good[config.per_question :]:
        taken = ", ".join(str(rows[ROLLOUTS][other].sample) for other in sorted(good[: config.per_question]))
        faults[at] = _Fault("best", f"not the {_BEST[config.best]}: taken is sample {taken}")
    picks: list[Row] = [
        Pick(
            question_id=rollout.question_id,
            source=rollout.source,
            policy=rollout.policy,
            sample=rollout.sample,
            taken=fault is None,
            failed=fault.test if fault else "",
            reason=fault.reason if fault else "",
        )
        for rollout, fault in zip(rows[ROLLOUTS], faults, strict=True)
    ]
    wrong = [at for at, fault in enumerate(faults) if fault and fault.test == "answer"]
    for chosen in good[: config.per_question]:
        pairs = (_pair(rows[ROLLOUTS], parsed, chosen, rejected) for rejected in wrong)
        picks += islice((pair for pair in pairs if pair.rejected not in ("", pair.chosen)), 1)
    return picks


_BEST = {"shortest": "shortest", "informative": "most informative"}


def _gate(reasons: Sequence[str] | None, *, passed: bool) -> _Fault | None:
    """Return what the quality gates say against a question; a question without a trajectory has no split."""
    if passed:
        return None
    return _Fault("gates", "; ".join(reasons) if reasons is not None else "it has no trajectory, so no split")


def _fault(config: PickConfig, question: Question, rollout: Rollout, parsed: Parsed) -> _Fault | None:
    """Return the first test that a rollout fails."""
    if rollout.policy != config.teacher:
        return _Fault("teacher", f"it is {rollout.policy}'s, not the teacher's")
    if not rollout.right:
        return _Fault("answer", f"wrong: {rollout.answer}" if rollout.answer is not None else "it has no answer")
    if not rollout.format_ok:
        return _Fault("format", "it is not in the paper's format")
    if warned(rollout.response, rollout.places) or len(rollout.observations or ()) > rollout.searches:
        return _Fault("format", "a turn is neither a search nor an answer")
    if rollout.gold_found < config.gold * rollout.gold or not rollout.searches:
        return _Fault("searched", f"guessed: {rollout.gold_found} of {rollout.gold} gold passages were shown")
    return _leak(question, parsed)


def _leak(question: Question, parsed: Parsed) -> _Fault | None:
    """Find a query that says the answer before a document has shown it: the teacher knew it from elsewhere."""
    shown: list[str] = []
    for number, found in enumerate(parsed.rounds, start=1):
        answers = [
            answer
            for answer in (question.answer, *question.answer_aliases)
            if not any(mentions(text, answer) for text in shown)
        ]
        if said := leaked(found.query.text, question.question, answers):
            return _Fault("leak", f"query {number} says {said[0]!r} before it was found: {found.query.text}")
        shown += [f"{document.title} {document.span.text}" for document in found.documents]
    return None


def _merit(best: Best, rollout: Rollout) -> tuple[float, int]:
    """Return a sort key, best rollout first; of equal ones the first."""
    if best == "shortest":
        return rollout.searches, rollout.sample
    return (rollout.redundancy_penalty - rollout.information_gain) / rollout.searches, rollout.sample


def _pair(rollouts: Sequence[Rollout], parsed: Sequence[Parsed], chosen: int, rejected: int) -> Preference:
    """Pair two rollouts where they part: the text that both share, and what each wrote next."""
    ends = [[0, *(found.end for found in parsed[at].rounds)] for at in (chosen, rejected)]
    texts = [rollouts[at].response for at in (chosen, rejected)]
    same = takewhile(lambda both: texts[0][: both[0]] == texts[1][: both[1]], zip(*ends, strict=False))
    *_, (start, _) = same  # both begin with nothing
    turn = ends[0].index(start)
    wrote = [own_turns(parsed[at], rollouts[at].places)[turn] for at in (chosen, rejected)]
    return Preference(
        question_id=rollouts[chosen].question_id,
        source=rollouts[chosen].source,
        policy=rollouts[chosen].policy,
        chosen_sample=rollouts[chosen].sample,
        rejected_sample=rollouts[rejected].sample,
        turn=turn + 1,
        context=texts[0][:start],
        chosen=wrote[0],
        rejected=wrote[1],
    )


STAGE = Stage(
    name="pick",
    doc="take a teacher's good rollouts as trajectories, and say why not the others",
    reads=(QUESTIONS, QUALITY, ROLLOUTS),
    writes=(PICKS, PREFERENCES),
    config=PickConfig,
    run=pick,
    version=2,  # turns that a warning answered count without `observations` too; the first wrong one that makes a pair
    optional=True,
)

"""rollouts: files of what policies did with the questions → `rollouts` and their `rollout_turns`."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from stepsearch_data.core.arrow import Sent
from stepsearch_data.core.errors import ConfigError, RowRejected, SourceError
from stepsearch_data.core.files import digest_of_file, open_regular
from stepsearch_data.core.validation import in_words
from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.rewards import Rollout as Parsed
from stepsearch_data.rewards import Scores, found_by, in_tags, read, score_rollout
from stepsearch_data.schemas.rollouts import RolloutRow
from stepsearch_data.schemas.rows import Question, Rollout, RolloutTurn
from stepsearch_data.schemas.tables import QUESTIONS, ROLLOUT_TURNS, ROLLOUTS
from stepsearch_data.sources.dataset import dataset_of
from stepsearch_data.sources.files import LONGEST_ROW
from stepsearch_data.sources.rollouts import policy_file

_TOGETHER = 100  # questions that are sent to a worker at once
_REFUSED = "the server refused it"
_COLUMNS = 6  # of a place: question, policy, file, sample, position, offset

Line = tuple[str, int, bytes]
"""A policy, and a line of its file with its position there."""
Rejected = tuple[str, int, str | None, str, bytes, bool]
"""The arguments of `StageContext.reject`, the last of which is `counts`."""


class RolloutsConfig(StageConfig):
    """Whose rollouts the store keeps; none by default, and then it has no such tables."""

    files: ClassVar[tuple[str, ...]] = ("policies",)

    policies: tuple[str, ...] = Field(
        default=(), description="rollouts as NAME=PATH, a folder of `eval` or JSON Lines; a policy may have several"
    )

    @field_validator("policies")
    @classmethod
    def _are_named(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            name, separator, place = text.partition("=")
            if not (name.strip() and separator and place):
                raise ValueError(f"{text}: expected NAME=PATH")
        return texts

    @property
    def named(self) -> list[tuple[str, Path]]:
        """Return the files, each with its policy's name; those of a policy stand together.

        Raises ConfigError where a policy has a file twice, which would double its rollouts.
        """
        found = [(name, policy_file(place)[1]) for name, _, place in (text.partition("=") for text in self.policies)]
        times = Counter((name, path.resolve()) for name, path in found)
        for name, path in (each for each, count in times.items() if count > 1):
            raise ConfigError(f"{name} has {path} twice", "name each file once in rollouts.policies")
        order = list(dict.fromkeys(name for name, _ in found))
        return sorted(found, key=lambda each: order.index(each[0]))

    def digests(self) -> dict[str, str]:
        """See `StageConfig.digests`."""
        return {f"policies {at}": f"{name} {_digest(path)}" for at, (name, path) in enumerate(self.named, start=1)}


def _digest(path: Path) -> str:
    try:
        return digest_of_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"cannot read {path}: {error.strerror}", "check rollouts.policies")


def rollouts(context: StageContext) -> None:
    """Score every rollout, in the order of the questions, then of the policies and their samples."""
    named = context.config(RolloutsConfig).named
    places = _survey(context, named)
    context.meter.expect(len(places))
    with ExitStack() as stack:
        opened = [(name, stack.enter_context(open_regular(path)).fileno()) for name, path in named]
        parts = _parts(context, opened, places)
        for played, turns, rejected, scored in context.executor(len(places)).map(_scored, parts):
            context.writer(ROLLOUTS).extend(played.table)
            context.writer(ROLLOUT_TURNS).extend(turns.table)
            for reject in rejected:
                context.reject(*reject[:-1], counts=reject[-1])
            for policy in scored:
                context.accept(policy)


def _survey(context: StageContext, named: Sequence[tuple[str, Path]]) -> NDArray[np.int64]:
    """Return where the rollouts are, in the order of the table, shape (rollouts, 6); last those without a question."""
    ids = pq.read_table(context.inputs[QUESTIONS], columns=["question_id"])["question_id"].to_pylist()
    order = {question_id: place for place, question_id in enumerate(ids)}
    policies = {name: at for at, name in enumerate(dict(named))}
    found = array("q")
    for at, (policy, path) in enumerate(named):
        try:
            with open_regular(path) as file:
                offset, position = 0, 0
                while line := file.readline(LONGEST_ROW):
                    position += 1
                    if line.strip():
                        question_id, sample, _ = _identify(line)
                        found.extend((order.get(question_id, len(ids)), policies[policy], at, sample, position, offset))
                    offset += len(line)
        except OSError as error:
            raise _unreadable(path, error) from error
    places = np.array(found, np.int64).reshape(-1, _COLUMNS)
    return places[np.lexsort(places.T[_COLUMNS - 2 :: -1])]


def _identify(line: bytes) -> tuple[str, int, str]:
    """Return the question of a line and its sample, "" and 0 where it tells none, and why it is no rollout."""
    try:
        row = _json(line)
    except RowRejected as error:
        return "", 0, str(error)
    question_id = row.get("question_id", row.get("id"))
    if not isinstance(question_id, str | int):
        return "", 0, "it has no question_id or id"
    if row.get("ended") == "refused":
        return "", 0, f"{_REFUSED}: {_told(row, 'error')}"
    return str(question_id), _counted(row, "sample") or 0, ""


def _json(line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RowRejected(f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise RowRejected("a rollout is a JSON object")
    return row


def _told(row: dict[str, Any], name: str) -> str:
    """Return a text of a line, empty where it is none."""
    return row[name] if isinstance(row.get(name), str) else ""


def _counted(row: dict[str, Any], name: str) -> int | None:
    """Return a number of a line that a column can hold; None where it is none."""
    number = row.get(name)
    fits = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 31
    return number if fits else None


_Part = list[tuple[Question | None, list[Line]]]
_Results = tuple[Sent, Sent, list[Rejected], list[str]]


def _parts(context: StageContext, opened: Sequence[tuple[str, int]], places: NDArray[np.int64]) -> Iterator[_Part]:
    """Yield questions that have rollouts, some at a time, with the lines of these; last the lines without one."""

    def lines(first: int, after: int) -> list[Line]:
        of = ((*opened[file], position, offset) for *_, file, _, position, offset in places[first:after].tolist())
        return [(policy, position, _line_at(handle, offset)) for policy, handle, position, offset in of]

    bounds = np.searchsorted(places[:, 0].copy(), np.arange(context.count(QUESTIONS) + 1)).tolist()
    part: _Part = []
    for question, first, after in zip(
        read_rows(context.inputs[QUESTIONS], QUESTIONS), bounds[:-1], bounds[1:], strict=True
    ):
        if first < after:
            part.append((question, lines(first, after)))
        if len(part) == _TOGETHER:
            yield part
            part = []
    yield part
    for at in range(bounds[-1], len(places), _TOGETHER):
        yield [(None, lines(at, at + _TOGETHER))]


def _line_at(handle: int, offset: int) -> bytes:
    """Read the line that begins at an offset."""
    line, size = b"", 1 << 16
    while b"\n" not in line and len(line) < LONGEST_ROW:
        more = os.pread(handle, size, offset + len(line))
        if not more:
            break
        line, size = line + more, size * 2
    return line.partition(b"\n")[0]


def _scored(part: _Part) -> _Results:
    """Return the rows of some questions, in a worker."""
    played: list[Rollout] = []
    turns: list[RolloutTurn] = []
    rejected: list[Rejected] = []
    scored: list[str] = []
    for question, lines in part:
        samples: Counter[str] = Counter()
        for policy, position, line in lines:
            if question is None:
                question_id, _, reason = _identify(line)
                counts = not reason.startswith(_REFUSED)  # such a row is no fault of the file, and is played again
                reason = reason or f"the store has no question {question_id}"
                rejected.append((policy, position, question_id or None, reason, line, counts))
                continue
            try:
                found = _rows(question, policy, samples[policy], line)
            except RowRejected as error:
                rejected.append((policy, position, question.question_id, str(error), line, True))
            else:
                samples[policy] += len(found)
                scored.append(policy)
                for rollout, own in found:
                    played.append(rollout)
                    turns += own
    return Sent(ROLLOUTS.to_arrow(played)), Sent(ROLLOUT_TURNS.to_arrow(turns)), rejected, scored


def _rows(question: Question, policy: str, earlier: int, line: bytes) -> list[tuple[Rollout, list[RolloutTurn]]]:
    """Make the rows of a line, after so many samples of the policy. Raises RowRejected.

    It is scored against what the store says of the question: of an unanswerable one, against what the line says.
    """
    found = _json(line)
    if found.get("question", question.question) != question.question:
        raise RowRejected("the store's question of this id is another one")
    targets = [question.answer, *question.answer_aliases]
    try:
        row = RolloutRow.model_validate({"target": targets, **found})
    except ValidationError as error:
        raise RowRejected(in_words(error, most=1)) from None
    if not question.answerable:
        targets = row.target
    golds = [gold.text for gold in question.supporting]
    made = []
    for sample, response in enumerate(row.responses, start=earlier + 1):
        given = row.observations
        text, observations = (response, given) if isinstance(response, str) else in_tags(response, given)
        parsed = read(text, observations=observations)
        scores = score_rollout(parsed, targets, support_docs=golds)
        turns = _turns(question, policy, sample, parsed, scores)
        answer = parsed.answer.text if parsed.answer else None
        right, f1 = (0.0, 0.0) if answer is None else dataset_of(question.source).score(answer, targets)
        rollout = Rollout(
            question_id=question.question_id,
            source=question.source,
            policy=policy,
            sample=sample,
            answer=answer,
            right=bool(right),
            f1=f1,
            format_ok=scores.format_ok,
            ended=_told(found, "ended"),
            searches=len(parsed.answered),
            gold=len(golds),
            gold_found=sum(turn.new_gold for turn in turns),
            information_gain=sum(scores.information_gain),
            redundancy_penalty=sum(scores.redundancy_penalty),
            own_tokens=_counted(found, "own_tokens"),
            response=text,
            observations=None if observations is None else [list(part) for part in observations],
        )
        made.append((rollout, turns))
    return made


def _turns(question: Question, policy: str, sample: int, parsed: Parsed, scores: Scores) -> list[RolloutTurn]:
    golds = {gold.passage_id: gold.text for gold in question.supporting}
    passage_ids = list(golds)
    asked = ((turn.query.text, [document.span.text for document in turn.documents]) for turn in parsed.rounds)
    steps = zip(
        parsed.rounds,
        found_by(asked, list(golds.values())),
        scores.information_gain,
        scores.redundancy_penalty,
        scores.step_scores,
        strict=True,
    )
    return [
        RolloutTurn(
            question_id=question.question_id,
            policy=policy,
            sample=sample,
            turn=number,
            query=turn.query.text,
            titles=[document.title for document in turn.documents],
            gold_passage_ids=[passage_ids[at] for at in found.gold],
            new_gold=found.new_gold,
            repeated=found.repeated,
            information_gain=gain,
            redundancy_penalty=penalty,
            step_reward=reward,
        )
        for number, (turn, found, gain, penalty, reward) in enumerate(steps, start=1)
    ]


STAGE = Stage(
    name="rollouts",
    doc="keep what policies did with the questions, scored turn by turn",
    reads=(QUESTIONS,),
    writes=(ROLLOUTS, ROLLOUT_TURNS),
    config=RolloutsConfig,
    run=rollouts,
    version=3,  # conversations are kept
    optional=True,
)

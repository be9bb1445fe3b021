"""The user's data that is not in the store: evaluation data, single-hop ids, a model's rollouts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.core.text import normalise
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources import OWN, musique
from stepsearch_data.sources.asked import parse_asked
from stepsearch_data.sources.dataset import dataset_of
from stepsearch_data.sources.record import Record
from stepsearch_data.sources.source import Source, parse_sources
from stepsearch_data.stages.gates.config import QualityConfig

T = TypeVar("T")

_IDS, _SCORES = ("question_id", "id"), ("correct", "score")


@dataclass
class EvalData:
    """Digests of the evaluation data's questions and gold paragraphs, and ids of its single-hop questions."""

    questions: set[bytes] = field(default_factory=set)
    paragraphs: set[bytes] = field(default_factory=set)
    single_hops: set[str] = field(default_factory=set)

    def add(self, question: Question) -> None:
        """Add a question of an evaluation split."""
        self.questions.add(digest(question.question))
        self.paragraphs.update(digest(f"{gold.title} {gold.text}") for gold in question.supporting)
        self.single_hops.update(single_hops(question))


def digest(text: str) -> bytes:
    """Hash a text after the official normalisation, so that spaces and punctuation do not hide a copy."""
    return hashlib.blake2b(normalise(text).encode(), digest_size=12).digest()


def single_hops(question: Question) -> list[str]:
    """Return the ids of the single-hop questions that a question is made of; none where its dataset has no such ids."""
    known = dataset_of(question.source).single_hops
    return known(question.question_id) if known else []


def read_eval(context: StageContext, config: QualityConfig) -> EvalData:
    """Read the evaluation data. A row that cannot be read becomes a reject. Raises SourceError."""
    known = EvalData()
    for source in parse_sources(config.eval_sources, asked=True):
        label = f"quality.eval_sources {source.label}"
        for record in source.records():
            question = _accepted(context, label, record, partial(parse_asked, source.kind))
            if question:
                known.add(question)
    if config.eval_single_hop_ids:
        lines = config.eval_single_hop_ids.read_text(encoding="utf-8", errors="replace").split()
        known.single_hops.update(number for line in lines for number in musique.single_hops(line) or [line])
    return known


def read_rollouts(context: StageContext, path: Path | None) -> dict[str, float]:
    """Return the mean score, from 0 to 1, of each question of a file of rollouts. A bad row becomes a reject."""
    sums: dict[str, tuple[float, int]] = {}
    for record in Source(OWN, str(path)).records() if path else ():
        scored = _accepted(context, "quality.rollouts", record, _score)
        if scored:
            total, count = sums.get(scored[0], (0.0, 0))
            sums[scored[0]] = total + scored[1], count + 1
    return {question_id: total / count for question_id, (total, count) in sums.items()}


def _accepted(context: StageContext, label: str, record: Record, parse: Callable[[Record], T | None]) -> T | None:
    """Return a parsed row, or None for a row that is empty or was rejected."""
    reason, parsed = record.broken, None
    try:
        parsed = None if reason else parse(record)
    except RowRejected as fault:
        reason = str(fault)
    if reason:
        context.reject(label, record.position, None, reason, record.data)
    else:
        context.accept(label)
    return parsed


def _score(record: Record) -> tuple[str, float]:
    try:
        row = orjson.loads(record.data) if isinstance(record.data, bytes) else record.data
    except orjson.JSONDecodeError as error:
        raise RowRejected(f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise RowRejected("a rollout is a JSON object")
    question_id, score = (next((row[name] for name in names if name in row), None) for names in (_IDS, _SCORES))
    if not isinstance(question_id, str):
        raise RowRejected(f"it has no {' or '.join(_IDS)} that is a text")
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise RowRejected(f"it has no {' or '.join(_SCORES)} that is a number, true or false")
    return question_id, min(max(float(score), 0.0), 1.0)

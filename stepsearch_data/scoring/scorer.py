"""Scoring rows in one process of `score`. Fast to import, and a scorer is small to send to a process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal, NamedTuple, get_type_hints

from pydantic import TypeAdapter, ValidationError

from stepsearch_data.core.errors import ConfigError, RowRejected
from stepsearch_data.core.validation import in_words
from stepsearch_data.rewards import (
    PAPER,
    PRESETS,
    Preset,
    RewardConfig,
    hotpotqa_answer,
    musique_answer,
    read,
    score_rollout,
)
from stepsearch_data.schemas.rollouts import AnswerRow, RolloutRow
from stepsearch_data.sources.record import Record, validate

Kind = Literal["rollouts", "answers"]
Chunk = Sequence[Record]
_RAW = 2_000  # characters of a rejected row that are kept


class Rejected(NamedTuple):
    """A row that could not be scored."""

    position: int
    reason: str
    raw: str


@dataclass(frozen=True)
class Scored:
    """A chunk's scores, one row per response; `read` rows of the file were scored or rejected."""

    read: int
    rows: list[dict[str, Any]]
    sums: dict[str, float]
    rejects: list[Rejected]


@dataclass(frozen=True)
class Scorer:
    """Scores rollouts by a preset, or answers by the official scripts."""

    kind: Kind
    config: RewardConfig = PAPER

    def score(self, chunk: Chunk) -> Scored:
        """Score every row. Rows that cannot be scored become rejects with the reason."""
        rows: list[dict[str, Any]] = []
        rejects = []
        for record in chunk:
            try:
                rows += self._rows(record)
            except RowRejected as reason:
                rejects.append(Rejected(record.position, str(reason), _raw(record.data)))
        return Scored(len(chunk), rows, _sums(rows), rejects)

    def _rows(self, record: Record) -> Iterator[dict[str, Any]]:
        if self.kind == "answers":
            yield _answer(record)
        else:
            row = validate(RolloutRow, record)
            for sample, response in enumerate(row.responses, start=1):
                yield _rollout(record.position, sample, response, row, self.config)


def _rollout(
    position: int, sample: int, response: str | list[dict[str, Any]], row: RolloutRow, config: RewardConfig
) -> dict[str, Any]:
    parsed = read(response, config, row.observations)
    scores = score_rollout(
        parsed, row.target, row.search_keys, [paragraph.paragraph_text for paragraph in row.support_docs], config
    )
    return {
        "position": position,
        "sample": row.sample if row.sample and len(row.responses) == 1 else sample,
        "policy": row.policy,
        "id": row.id,
        "data_source": row.data_source,
        **vars(scores),
        "searches": len(parsed.answered),
        "rounds": len(parsed.rounds),
        "answer": parsed.answer.text if parsed.answer else None,
    }


def _answer(record: Record) -> dict[str, Any]:
    row = validate(AnswerRow, record)
    em, f1 = musique_answer(row.prediction, row.answers)
    hotpotqa = hotpotqa_answer(row.prediction, row.answers[0])
    return {
        "position": record.position,
        "musique_em": em,
        "musique_f1": f1,
        "hotpotqa_em": int(hotpotqa.em),
        "hotpotqa_f1": hotpotqa.f1,
    }


def _raw(data: bytes | dict[str, Any]) -> str:
    return (data[: 4 * _RAW].decode(errors="backslashreplace") if isinstance(data, bytes) else str(data))[:_RAW]


def _sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sum all numbers by name, and the elements of lists."""
    sums: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        for name, value in row.items():
            if isinstance(value, list):
                sums[f"{name}_per_round"] += sum(value)
            elif isinstance(value, int | float) and name not in ("position", "sample"):
                sums[name] += value
    return sums


def configure(preset: Preset, settings: Sequence[str]) -> RewardConfig:
    """Return a preset with some switches set, each as NAME=VALUE. Raises ConfigError."""
    if preset not in PRESETS:
        raise ConfigError(f"there is no preset {preset!r}", f"known: {', '.join(PRESETS)}")
    kinds = get_type_hints(RewardConfig)
    values: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or name not in kinds:
            raise ConfigError(f"--set {setting}: expected NAME=VALUE", f"NAME is one of {', '.join(kinds)}")
        try:
            value = TypeAdapter(kinds[name]).validate_python(None if text.lower() == "none" else text)
        except ValidationError as error:
            raise ConfigError(f"--set {setting}: {in_words(error, most=1)}") from None
        if value is not None and not isfinite(value):
            raise ConfigError(f"--set {setting}: expected a finite number")
        values[name] = value
    return replace(PRESETS[preset], **values)

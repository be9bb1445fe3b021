"""The settings of the stage `quality`: what each gate does, and its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from stepsearch_data.pipeline.stage import StageConfig
from stepsearch_data.sources.dataset import dataset_of
from stepsearch_data.sources.source import parse_source

Action = Literal["reject", "flag", "off"]
Share = Annotated[float, Field(ge=0, le=1)]


class Finding(NamedTuple):
    """A gate that a trajectory fails, and why."""

    gate: str
    reason: str


class QualityConfig(StageConfig):
    """What each gate does (`reject`, `flag` or `off`), then their bounds, the user's own files, and the splits."""

    files: ClassVar[tuple[str, ...]] = ("eval_sources", "eval_single_hop_ids", "rollouts")

    placeholder: Action = Field(default="reject", description="a `#k` in a sub-question or query was never filled")
    leak: Action = Field(default="reject", description="a query says an answer that it is to find, or a later one")
    answer_not_in_paragraph: Action = Field(
        default="reject", description="the gold paragraphs of a hop hold less than half of its answer's words"
    )
    sub_question_is_question: Action = Field(
        default="reject", description="a sub-question repeats the question, which has several hops"
    )
    duplicate: Action = Field(default="reject", description="an earlier question that passes has the same words")
    near_duplicate: Action = Field(
        default="reject",
        description="an earlier question that passes has the same answer, names and numbers, and similar words",
    )
    gold_not_found: Action = Field(default="reject", description="no engine finds a gold passage of a hop")
    gold_not_shown: Action = Field(
        default="reject", description="a gold round has no kept query, or shows no gold passage"
    )
    eval_overlap: Action = Field(
        default="reject", description="the question, or a gold paragraph, is one of quality.eval_sources"
    )
    eval_single_hop: Action = Field(
        default="reject", description="a MuSiQue question is made of a single-hop question of an evaluation split"
    )
    broken_text: Action = Field(
        default="reject", description="mojibake, replacement or control characters, or hardly any letter"
    )
    length: Action = Field(default="flag", description="a text is far longer or shorter than its source's others")
    not_english: Action = Field(default="flag", description="a text has hardly any English stop word: a heuristic")
    unproven: Action = Field(
        default="off", description="the question has not passed its checks: see `verdicts` and decide.gates"
    )
    marks: Literal["ignore", "drop-bad", "only-good"] = Field(
        default="ignore", description="it is marked bad (drop-bad), or is not marked good (only-good)"
    )

    pass_rate: tuple[Share, Share] | None = Field(
        default=None,
        description="a policy passes the question more or less often than in this range, such as [0.2, 0.8]",
    )

    near_duplicate_likeness: float = Field(
        default=0.8, gt=0, le=1, description="share of common 4-grams of characters, from which on texts are similar"
    )
    length_spread: float = Field(
        default=5.0, gt=0, le=1_000, description="how many robust standard deviations of log length make an outlier"
    )
    min_letters: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of letters among a text's visible characters, below which it is broken",
    )
    min_stop_words: float = Field(
        default=0.1, ge=0, le=1, description="share of English stop words, below which a text is not English"
    )
    eval_sources: tuple[str, ...] = Field(
        default=(), description="evaluation data as KIND=PATH, as for `eval --questions`: none of it may be trained on"
    )
    eval_single_hop_ids: Path | None = Field(
        default=None, description="file of MuSiQue's dev and test single-hop ids, one per line"
    )
    rollouts: Path | None = Field(
        default=None, description="JSON Lines of a model's rollouts, {question_id, score}: their mean is the pass rate"
    )
    policy: str = Field(
        default="", description="policy of the table rollouts whose pass rates count; needed where it has several"
    )
    validation: float = Field(
        default=0.05, ge=0, lt=1, description="share of the groups of questions that become the split validation"
    )
    largest_validation_group: int = Field(
        default=50,
        ge=1,
        le=1_000_000_000,
        description="questions of a group; a larger one is train, or it could be all of validation",
    )
    seed: int = Field(default=0, ge=-(2**63), lt=2**63, description="seed of the splits")

    @field_validator("eval_sources")
    @classmethod
    def _are_sources(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            parse_source(text, "quality.eval_sources", asked=True)
        return texts

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if self.pass_rate and self.pass_rate[0] > self.pass_rate[1]:
            raise ValueError("pass_rate: expected the lower end first")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later settings that decide nothing: stores of earlier versions stay current."""
        values: dict[str, Any] = dump(self)
        idle = {MARKS: "ignore", PASS_RATE: None, "policy": ""}
        return {name: value for name, value in values.items() if name not in idle or value != idle[name]}

    @property
    def marked(self) -> str:
        """Return the mark that decides which trajectories pass."""
        return {"ignore": "", "drop-bad": "bad", "only-good": "good"}[self.marks]

    def action(self, gate: str) -> Action:
        """Return what a gate does."""
        return action(gate, getattr(self, gate))


NOT_CHECKED = "not checked"
MARKS, PASS_RATE = "marks", "pass_rate"
GATES = (
    *(name for name, info in QualityConfig.model_fields.items() if get_args(info.annotation) == get_args(Action)),
    MARKS,
    PASS_RATE,
)


def action(gate: str, value: Any) -> Action:
    """Return what a gate does whose setting has this value."""
    if gate == MARKS:
        return "reject" if value in ("drop-bad", "only-good") else "off"
    if gate == PASS_RATE:
        return "reject" if value else "off"
    return value  # type: ignore[no-any-return]  # a setting of this type


def unchecked(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """Return the gates that checked nothing, by the fingerprint of `quality`: `off`, or `not checked` without data."""
    config, files = fingerprint["config"], fingerprint.get("files", {})
    data = {content.partition(" ")[0] for name, content in files.items() if name.startswith("eval_sources")}
    ids = [name for name in files if name.startswith("eval_single_hop_ids")]
    ids += [kind for kind in data if dataset_of(kind).single_hops]
    wanting = {"eval_overlap": not data, "eval_single_hop": not ids}
    missing = {gate: NOT_CHECKED for gate, is_missing in wanting.items() if is_missing}
    return missing | {gate: "off" for gate in GATES if action(gate, config.get(gate)) == "off"}

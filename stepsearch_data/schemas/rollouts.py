"""Rollouts to score, and what is written about them.

The fields of the StepSearch release are read, and the spellings of other logs: verl's dumps of
generations (`output`, `gts`) and its Parquet with a column `responses`, the training rows of verl and
Search-R1 (`reward_model.ground_truth`, `extra_info`, `golden_answers`) beside a response, and our
own trajectories (`rollout`, `answer`, `answer_aliases`). Null stands for absent, as Parquet has it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stepsearch_data.schemas.rows import Row

Fields = Mapping[str, Any]
RESPONSES = ("response", "responses", "output", "rollout", "completion", "messages")
"""Names that a response goes by, the first that is there wins."""
READ = (
    *("id", "question_id", "data_source", "policy", "sample", *RESPONSES),
    *("target", "golden_answers", "answer", "answer_aliases", "search_keys", "support_docs"),
    *("ground_truth", "gts", "reward_model", "extra_info", "observations"),
)
"""Every field that is read: of a Parquet file, no other column is."""


def _listed(value: Any) -> Any:
    """Return one text as a list of it."""
    return [value] if isinstance(value, str) else value


def _responses(value: Any) -> Any:
    """Return one text, or one conversation, as a list of it."""
    is_conversation = isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
    return [value] if isinstance(value, str) or is_conversation else value


def _groups(value: Any) -> Any:
    """Return reference queries by sub-question; a text alone is its sub-question's only query."""
    return [_listed(group) for group in value] if isinstance(value, list) else value


def _paragraphs(value: Any) -> Any:
    """Return texts as paragraphs without a title."""
    if not isinstance(value, list):
        return value
    return [{"paragraph_text": item} if isinstance(item, str) else item for item in value]


class _InputRow(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class GoldParagraph(_InputRow):
    """A gold paragraph; only its text is compared."""

    paragraph_text: str = Field(validation_alias=AliasChoices("paragraph_text", "text"))


class GoldRow(_InputRow):
    """What rollouts of a question are scored against."""

    id: str | None = None
    data_source: str | None = None
    target: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    search_keys: Annotated[list[list[str]], BeforeValidator(_groups)] = []
    support_docs: Annotated[list[GoldParagraph], BeforeValidator(_paragraphs)] = []

    @model_validator(mode="before")
    @classmethod
    def _official(cls, row: Any) -> Any:
        """Bring other logs' spellings to the reference code's."""
        if not isinstance(row, dict):
            return row
        fields = _present(row)
        truth = _truth(fields)
        extra = _present(fields.get("extra_info"))
        identifier = fields.get("question_id", fields.get("id"))
        origin, policy, sample = (fields.get(name) for name in ("data_source", "policy", "sample"))
        found = {
            "id": str(identifier) if isinstance(identifier, str | int) else None,
            "data_source": origin if isinstance(origin, str) else None,
            "policy": policy if isinstance(policy, str) else None,
            "sample": sample if isinstance(sample, int) and 0 < sample < 1 << 31 else None,
            "responses": next((fields[name] for name in RESPONSES if name in fields), None),
            "target": fields.get("target", truth.get("target")),
            "search_keys": fields.get("search_keys", truth.get("search_keys")),
            "support_docs": fields.get("support_docs", extra.get("support_docs")),
            "observations": fields.get("observations"),
        }
        return _present(found)


class RolloutRow(GoldRow):
    """A question's rollouts, one or several, with what they are scored against."""

    policy: str | None = None
    sample: int | None = None
    """Which of the policy's rollouts of the question it is, from 1."""
    responses: Annotated[list[str | list[dict[str, Any]]], BeforeValidator(_responses), Field(min_length=1)]
    """Texts, or conversations."""
    observations: list[tuple[int, int]] | None = None
    """What the environment wrote of the response, as character offsets (start, end); by its tags where unknown."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        """Check that observations lie in the response, one after the other."""
        bounds = [0, *(place for places in self.observations or () for place in places), len(self.responses[0])]
        if self.observations is not None and (len(self.responses) > 1 or bounds != sorted(bounds)):
            raise ValueError("observations: expected parts of one response, in order")
        return self


def _present(value: Any) -> dict[str, Any]:
    """Return what a record holds; null stands for absent."""
    return {name: inner for name, inner in value.items() if inner is not None} if isinstance(value, dict) else {}


def _truth(fields: Fields) -> dict[str, Any]:
    """Return what a row says is right: `target` and perhaps `search_keys`."""
    truth = fields.get("ground_truth", fields.get("gts", _present(fields.get("reward_model")).get("ground_truth")))
    if isinstance(truth, dict):
        return _present(truth)
    if truth is None:
        truth = fields.get("golden_answers", _with_aliases(fields))
    return {"target": truth}


def _with_aliases(fields: Fields) -> Any:
    answer, aliases = fields.get("answer"), fields.get("answer_aliases", [])
    return [answer, *aliases] if isinstance(answer, str) and isinstance(aliases, list) else answer


class AnswerRow(_InputRow):
    """A prediction and its gold answers, the main one first."""

    prediction: str
    answers: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]


class ScoredRollout(Row):
    """A rollout's scores, component by component."""

    position: int = Field(description="position of its row in the file, from 1: line, array element or Parquet row")
    sample: int = Field(description="`sample` of the row, else the position among its responses, from 1")
    policy: str | None = Field(description="`policy` of the row, as in a store; null where it has none")
    id: str | None = Field(description="`question_id` or `id` of the row; null where it has none")
    data_source: str | None = Field(description="`data_source` of the row; null where it has none")
    score: float = Field(description="r_answer + γ_key · r_key: the reward of the last token")
    answer_correct: float = Field(description="F1 of the last answer, in whatever format")
    answer_em: int = Field(description="1 where the last answer matches a target exactly")
    search_key_score: float = Field(description="r_key; 0 where a wrong format forfeits it")
    information_gain: list[float] = Field(description="G^t of every round")
    redundancy_penalty: list[float] = Field(description="P^t of every round")
    step_scores: list[float] = Field(description="G^t - P^t; empty where a wrong format forfeits them")
    step_rewards: list[float] = Field(description="step scores times the preset's scale: the rewards of the rounds")
    format_ok: bool = Field(description="whether the preset accepts the format")
    search_format_ok: bool = Field(description="whether the preset accepts the format of the searches")
    searches: int = Field(description="searches that the engine answered")
    rounds: int = Field(description="rounds that were found")
    answer: str | None = Field(description="the last closed answer; null where there is none")


class ScoredAnswer(Row):
    """A prediction's scores by the official scripts."""

    position: int = Field(description="position of its row in the file, from 1")
    musique_em: int = Field(description="MuSiQue v1.0: exact match, the highest over all answers")
    musique_f1: float = Field(description="MuSiQue v1.0: F1, the highest over all answers")
    hotpotqa_em: int = Field(description="HotpotQA v1: exact match with the main answer")
    hotpotqa_f1: float = Field(description="HotpotQA v1: F1 with the main answer")

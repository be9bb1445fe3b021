"""A rollout's scores with all their components (arXiv 2505.15107; the reference code's `qa_step.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepsearch_data.rewards.answers import exact_match, token_f1
from stepsearch_data.rewards.conversation import Message, read_conversation
from stepsearch_data.rewards.presets import PAPER, RewardConfig
from stepsearch_data.rewards.rollout import Places, Rollout, parse
from stepsearch_data.rewards.steps import information_gain, redundancy_penalty, search_key_reward


@dataclass(frozen=True)
class Scores:
    """The scores of a rollout. Lists have one number per round, or none where the format is wrong and costs them.

    `score` is given on the last token, `step_rewards` on the rounds' ends. The others are their parts:
    `answer_correct` is the answer's F1 in any format, `step_scores` is G - P before the scale.
    """

    score: float
    answer_correct: float
    answer_em: int
    search_key_score: float
    step_scores: list[float]
    step_rewards: list[float]
    information_gain: list[float]
    redundancy_penalty: list[float]
    format_ok: bool
    search_format_ok: bool


def read(text: str | Sequence[Message], config: RewardConfig = PAPER, observations: Places | None = None) -> Rollout:
    """Parse a rollout as this config does; messages as `read_conversation` does.

    `observations` are the parts of a text that the environment wrote, if known. Raises RowRejected for messages with
    calls of another shape.
    """
    lazy, keep_next_label = config.lazy_patterns, config.keep_next_label
    if not isinstance(text, str):
        return read_conversation(text, lazy=lazy, keep_next_label=keep_next_label, observations=observations)
    return parse(text, lazy=lazy, keep_next_label=keep_next_label, observations=observations)


def score_rollout(
    rollout: str | Rollout,
    target: Sequence[str],
    search_keys: Sequence[Sequence[str]] = (),
    support_docs: Sequence[str] = (),
    config: RewardConfig = PAPER,
) -> Scores:
    """Score a response: any text, or one that `read` has read with the same config.

    `target` holds the accepted answers, `search_keys` the reference queries of every sub-question,
    `support_docs` the texts of the gold paragraphs. r = r_answer + γ_key · r_key; step t: G^t - P^t.
    """
    parsed = read(rollout, config) if isinstance(rollout, str) else rollout
    answer = parsed.answer.text if parsed.answer else None
    f1 = 0.0 if answer is None else token_f1(answer, target, config.decimals)
    right = parsed.answer_last if config.loose_format else parsed.format.ok
    right_search = config.loose_format or parsed.format.search_ok
    forfeit = None if right else config.failure_score
    failed = forfeit is not None
    key = 0.0
    if right_search and not failed:
        queries = parsed.queries if config.unanswered_count else parsed.answered
        key = search_key_reward(
            queries, search_keys, one_key_per_query=config.one_key_per_query, decimals=config.decimals
        )
    gains, penalties = _gains_and_penalties(parsed, support_docs, config)
    steps = [] if failed else [_step(gain, penalty, config) for gain, penalty in zip(gains, penalties, strict=True)]
    score = (f1 if right else 0.0) + (key * config.key_weight if config.key_reward else 0.0)
    return Scores(
        score=score if forfeit is None else forfeit,
        answer_correct=f1,
        answer_em=0 if answer is None else exact_match(answer, target),
        search_key_score=key,
        step_scores=steps,
        step_rewards=[config.step_scale * step for step in steps],
        information_gain=gains,
        redundancy_penalty=penalties,
        format_ok=right,
        search_format_ok=right_search,
    )


def _gains_and_penalties(
    parsed: Rollout, golds: Sequence[str], config: RewardConfig
) -> tuple[list[float], list[float]]:
    """Compute G^t and P^t of every round."""
    if config.steps_need_gold and not golds:
        return [], []
    texts = [[document.span.text for document in found.documents] for found in parsed.rounds]
    gains = information_gain(texts, golds, refit=config.refit_tfidf).gains
    queries = [found.query.text for found in parsed.rounds] if config.repeated_queries_only else None
    return gains, redundancy_penalty(texts, repeats_in_round=config.repeats_in_round, queries=queries)


def _step(gain: float, penalty: float, config: RewardConfig) -> float:
    if not config.step_reward:
        return 0.0
    return (gain if config.information_gain else 0.0) - (penalty if config.redundancy_penalty else 0.0)

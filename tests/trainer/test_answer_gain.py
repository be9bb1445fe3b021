"""The information gain of the policy's own answer, by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from stepsearch_data.rewards import PAPER, without
from stepsearch_data.trainer import answer_gain as module
from stepsearch_data.trainer.answer_gain import add_answer_gains
from stepsearch_data.trainer.causal_lm import log_probabilities
from stepsearch_data.trainer.config import PPOConfig
from stepsearch_data.trainer.episode_score import score_episode
from stepsearch_data.trainer.search_env import Episode, SearchEnv
from tests.trainer.test_sampler import anew
from tests.trainer.tiny import PARAGRAPHS, TASKS

OUTCOME = without(without(PAPER, "key"), "step")


def played(env: SearchEnv, searches: int) -> Episode:
    episode = env.reset(TASKS[0])
    for at in range(searches):
        query = env.step(episode, env.encode("<think> capital </think> <search> capital </search>")) or ""
        env.observe(episode, query, [PARAGRAPHS[at]])
    env.step(episode, env.encode("<answer> Rome </answer>"))
    return episode


@pytest.mark.parametrize("cut", [{"micro_batch_size": 2}, {"micro_batch_tokens": 120}], ids=str)
def test_every_search_earns_what_it_adds_to_the_probability_of_the_answer(
    env: SearchEnv, policy: Any, cut: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows of different lengths, some at a time, as by plain passes over each text alone."""
    shapes: list[tuple[int, int]] = []

    def counted(model: Any, tokens: Any, *rest: Any) -> Any:
        shapes.append(tuple(tokens.shape))
        return log_probabilities(model, tokens, *rest)

    monkeypatch.setattr(module, "log_probabilities", counted)
    episodes = [played(env, 2), played(env, 0), played(env, 1)]
    scored = [score_episode(episode, OUTCOME) for episode in episodes]
    added, told = add_answer_gains(policy, env.encode, episodes, scored, 0.5, PPOConfig(**cut))
    limit = cut.get("micro_batch_tokens")
    assert all(rows == 1 or rows * width <= limit if limit else rows <= 2 for rows, width in shapes)
    answer, total = env.encode(" Paris"), 0.0
    for episode, each in zip(episodes, added, strict=True):
        own = [at for at, by_policy in enumerate(episode.response_mask) if by_policy]
        starts = [at for at in own if at and not episode.response_mask[at - 1]]  # of turns after an observation
        texts = [episode.prompt_ids + episode.response_ids[:end] + env.encode("<answer>") for end in (0, *starts)]
        p = [math.exp(anew(policy, text + answer)[-len(answer) :].mean()) for text in texts]
        gains = [after - before for before, after in pairwise(p)]
        assert [token for token, _ in each.token_rewards] == [*(search.token for search in episode.searches), own[-1]]
        assert [reward for _, reward in each.token_rewards[:-1]] == pytest.approx(
            [gain / 2 for gain in gains], abs=1e-6
        )
        total += sum(gains)
    assert told["answer_gain"] == pytest.approx(total / 3, abs=1e-6)


def test_gains_add_to_the_step_rewards_of_the_paper(env: SearchEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities of 0.2, 0.5 and 0.4 are gains of 0.3 and −0.1."""
    monkeypatch.setattr(module, "answer_probabilities", lambda *_: [0.2, 0.5, 0.4])
    episode = played(env, 2)
    before = score_episode(episode)
    (after,), told = add_answer_gains(None, env.encode, [episode], [before], 2.0, PPOConfig())
    changes = [new - old for (_, old), (_, new) in zip(before.token_rewards, after.token_rewards, strict=True)]
    assert changes == pytest.approx([0.6, -0.2, 0.0])
    assert told["answer_gain"] == pytest.approx(0.2)

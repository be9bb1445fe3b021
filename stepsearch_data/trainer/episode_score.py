"""What an episode earns, and on which tokens. No torch, so that other trainers can ask too."""

from __future__ import annotations

from dataclasses import dataclass

from stepsearch_data.rewards import PAPER, RewardConfig, Rollout, Scores, read, score_rollout, transcript
from stepsearch_data.rewards.conversation import documents_in
from stepsearch_data.rewards.rollout import Texts
from stepsearch_data.trainer.search_env import Episode, Task


@dataclass(frozen=True)
class EpisodeScore:
    """The parts of an episode's reward, and the rewards on tokens of its response: (token, reward) each."""

    scores: Scores
    token_rewards: list[tuple[int, float]]

    @property
    def total(self) -> float:
        """Sum all rewards of the episode."""
        return sum(reward for _, reward in self.token_rewards)


def score_episode(episode: Episode, config: RewardConfig = PAPER) -> EpisodeScore:
    """Score an episode (arXiv 2505.15107).

    r_step^t lies on the last token that the policy wrote in search round t, r_answer + γ_key · r_key on its last one.

    What the environment wrote is known, and is not read as the policy's; an `<information>` that the policy made up
    is not a result.
    """
    rollout = _calls(episode) if episode.by_calls else read(episode.text, config, episode.observations)
    scores = score_task(rollout, episode.task, config)
    # A wrong format may forfeit the step rewards.
    if episode.by_calls:
        paid = zip(episode.searches, scores.step_rewards, strict=False)
        steps = [(search.token, reward) for search, reward in paid]
    else:
        tokens = {search.character: search.token for search in episode.searches}
        pairs = zip(rollout.rounds, scores.step_rewards, strict=False)
        steps = [(tokens[found.searched], reward) for found, reward in pairs if found.searched in tokens]
    last = max((at for at, by_policy in enumerate(episode.response_mask) if by_policy), default=None)
    return EpisodeScore(scores, steps if last is None else [*steps, (last, scores.score)])


def _calls(episode: Episode) -> Rollout:
    """Read an episode with calls: its searches with what the policy was shown of them, and those that were not run."""
    shown: list[tuple[str, Texts | None]] = [
        (search.query, list(documents_in(search.shown))) for search in episode.searches
    ]
    missed = episode.asked[len(shown) :]
    answer = read(episode.last_turn).answer if episode.ended == "answer" else None
    return transcript([*shown, *((query, None) for query in missed)], answer.text if answer else None)


def score_task(rollout: Rollout, task: Task, config: RewardConfig = PAPER) -> Scores:
    """Score a rollout of a task."""
    return score_rollout(rollout, task.answers, task.search_keys, [doc.text for doc in task.support_docs], config)

"""What an episode earns, and on which tokens."""

from __future__ import annotations

from dataclasses import dataclass

from stepsearch_data.rewards import PAPER, RewardConfig, Scores, read, score_rollout
from stepsearch_data.trainer.losses import Steps
from stepsearch_data.trainer.search_env import Episode


@dataclass(frozen=True)
class Earned:
    """The parts of an episode's reward, and the rewards on tokens of the response."""

    scores: Scores
    steps: Steps

    @property
    def total(self) -> float:
        """Sum of all rewards of the episode."""
        return sum(reward for _, reward in self.steps)


def earned(episode: Episode, config: RewardConfig = PAPER) -> Earned:
    """Score an episode (arXiv 2505.15107).

    r_step^t lies on the last token that the policy wrote in search round t, r_answer + γ_key · r_key on its last one.

    What the environment wrote is known, and is not read as the policy's; an `<information>` that the policy made up
    is no result.
    """
    rollout = read(episode.text, config, episode.observations)
    task = episode.task
    golds = [gold.text for gold in task.golds]
    scores = score_rollout(rollout, task.answers, task.keys, golds, config)
    tokens = {search.character: search.token for search in episode.searches}
    pairs = zip(rollout.rounds, scores.step_rewards, strict=False)  # a wrong format may forfeit the step rewards
    steps = [(tokens[found.searched], reward) for found, reward in pairs if found.searched in tokens]
    last = max((token for token, own in enumerate(episode.own) if own), default=None)
    return Earned(scores, steps if last is None else [*steps, (last, scores.score)])

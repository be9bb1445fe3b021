"""SkyRL-Gym 0.4: an environment whose every step has its reward, which SkyRL puts on the turn's last token.

    register(id="stepsearch", entry_point="stepsearch_data.environments.skyrl:SearchEnv", kwargs={"store": "store"})

Rows are those of the export `skyrl`. The extra `skyrl` installs skyrl-gym.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput, ConversationType

from stepsearch_data.environments.config import EnvironmentConfig, task_of
from stepsearch_data.environments.tagged import TaggedEnvironment


class SearchEnv(BaseTextEnv):
    """Plays in tags. `options`, and `env_config` if it is any, have fields of `EnvironmentConfig`.

    `extras` are the columns of the row. Raises ConfigError, RowRejected; a step raises SearchError where the engine
    failed.
    """

    def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__()
        given = dict(env_config) if isinstance(env_config, Mapping) else {}
        config = EnvironmentConfig.of(**{"template": "musique", **given, **options})
        self.max_turns = config.max_turns + 1  # one more, to answer in
        self.played = TaggedEnvironment(config)
        self._task = task_of(extras or {})

    def init(self, prompt: ConversationType) -> tuple[ConversationType, dict[str, Any]]:
        """See `BaseTextEnv.init`."""
        self.played.reset(self._task)
        return prompt, {}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """See `BaseTextEnv.step`."""
        self.turns += 1
        turn = self.played.step(action)
        observations = [] if turn.done else [{"role": "user", "content": turn.observation}]
        return BaseTextEnvStepOutput(observations=observations, reward=turn.reward, done=turn.done, metadata={})

    def get_metrics(self) -> dict[str, Any]:
        """See `BaseTextEnv.get_metrics`."""
        scores = self.played.scores
        return {
            "answer_em": scores.answer_em,
            "answer_f1": scores.answer_correct,
            "search_key_score": scores.search_key_score,
            "step_rewards": sum(scores.step_rewards),
            "searches": len(self.played.episode.searches),
        }

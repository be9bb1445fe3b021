"""Signs that a policy has collapsed, and what helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stepsearch_data.trainer.search_env import Episode

_NEARLY_ALL = 0.95  # of the rollouts
_CERTAIN = 0.01  # nats per token: the policy no longer varies what it writes
_FAR = 1.0  # nats per token: the reference would hardly write what the policy does
_MOSTLY = 0.5  # exact match from which on a policy may well be certain, and far from its reference

Seen = Callable[[Mapping[str, float], Sequence[Episode]], bool]


@dataclass(frozen=True)
class Sign:
    """What collapse looks like: whether an update shows it, in words, and what to do."""

    seen: Seen
    message: str
    hint: str


def _share(episodes: Sequence[Episode], of: Callable[[Episode], bool]) -> float:
    return sum(map(of, episodes)) / len(episodes) if episodes else 0.0


def _mostly_wrong(metrics: Mapping[str, float]) -> bool:
    return metrics.get("em", 0.0) < _MOSTLY


SIGNS = (
    Sign(
        lambda _, episodes: _share(episodes, lambda each: not each.searches) >= _NEARLY_ALL,
        "almost no rollout searches",
        "a longer cold start teaches the format, a lower schedule.learning_rate or a larger ppo.kl_coef keeps it",
    ),
    Sign(
        lambda _, episodes: _share(episodes, lambda each: each.ended != "answer") >= _NEARLY_ALL,
        "almost no rollout ends with an answer",
        "look at the sample: rollouts cut short need larger limits, others a longer cold start or a "
        "lower schedule.learning_rate",
    ),
    Sign(
        lambda metrics, _: metrics.get("entropy", 1.0) < _CERTAIN and _mostly_wrong(metrics),
        "the policy's entropy is near 0 though most answers are wrong: it no longer tries anything else",
        "continue from an earlier checkpoint with a lower schedule.learning_rate, or set ppo.entropy_coef to 0.001",
    ),
    Sign(
        lambda metrics, _: metrics.get("kl", 0.0) > _FAR and _mostly_wrong(metrics),
        f"the KL to the reference is above {_FAR:g} nats per token though most answers are wrong: the policy diverges",
        "continue from an earlier checkpoint with a larger ppo.kl_coef or a lower schedule.learning_rate",
    ),
)


class CollapseDetector:
    """Watches for signs that stay for several updates; each is told once, and again when it comes back."""

    def __init__(self, patience: int = 3) -> None:
        self._patience = patience
        self._lasted: Counter[Sign] = Counter()

    def __call__(self, metrics: Mapping[str, float], episodes: Sequence[Episode]) -> Iterator[Sign]:
        """Yield the signs that have lasted long enough with this update."""
        for sign in SIGNS:
            self._lasted[sign] = self._lasted[sign] + 1 if sign.seen(metrics, episodes) else 0
            if self._lasted[sign] == self._patience:
                yield sign

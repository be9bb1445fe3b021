"""How sure a share is, and how often a policy passes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Interval:
    """A mean over n values, and the 95 % confidence interval of it; both ends are None where n < 2."""

    n: int
    mean: float
    low: float | None
    high: float | None


_Z = 1.959964  # of 95 %


def share_interval(hits: int, n: int) -> Interval:
    """Compute Wilson's interval of a share: fit for few cases, also where all or none of them hit.

    Needs a case.
    """
    share, spread = hits / n, _Z * _Z / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return Interval(n, share, max(0.0, centre - half), min(1.0, centre + half))


_HARD, _EASY = 0.2, 0.8
BANDS = {
    "unsolved": "0",
    "hard": f"below {_HARD}",
    "medium": f"{_HARD} to {_EASY}",
    "easy": f"above {_EASY}",
    "solved": "1",
}
"""Bands of pass rates, and which these are in words."""


class Passes(NamedTuple):
    """The rollouts of a question, and how many of them are right."""

    right: int
    rollouts: int

    @property
    def rate(self) -> float:
        """Return the pass rate."""
        return self.right / self.rollouts

    @property
    def interval(self) -> Interval:
        """Return the pass rate with Wilson's interval."""
        return share_interval(self.right, self.rollouts)

    @property
    def band(self) -> str:
        """Return the band of the pass rate."""
        if self.right in (0, self.rollouts):
            return "solved" if self.right else "unsolved"
        return "hard" if self.rate < _HARD else "easy" if self.rate > _EASY else "medium"

"""How sure a share is."""

from __future__ import annotations

import math
from dataclasses import dataclass


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

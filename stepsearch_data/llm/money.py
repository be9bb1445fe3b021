"""What calls cost: a table of prices, estimates, and budgets that stop a build."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from stepsearch_data.core.errors import BudgetError
from stepsearch_data.llm.chat import Usage

BATCH_SHARE = 0.5  # of an online call's price
CHARACTERS_A_TOKEN = 4  # of English prose, as a rule of thumb; used before the server's own count is known


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    prompt: float
    completion: float

    def of(self, usage: Usage) -> float:
        """Return the dollars for so many tokens."""
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / 1e6


def price_of(model: str, own: Mapping[str, tuple[float, float]]) -> Price | None:
    """Return the user's price, else the packaged one; None for a model that neither knows."""
    price = own.get(model) or _packaged().get(model)
    return Price(*price) if price else None


@cache
def _packaged() -> dict[str, tuple[float, float]]:
    return tomllib.loads((resources.files(__package__) / "prices.toml").read_text())


def tokens_in(*texts: str) -> int:
    """Estimate the number of tokens of some texts."""
    return sum(map(len, texts)) // CHARACTERS_A_TOKEN + 1


class Budget:
    """Counts what was paid, and stops the build before the next call once a limit is reached.

    `paid` are records of what the store's earlier builds paid: a limit holds for all of them together.
    """

    def __init__(self, max_cost: float | None, max_tokens: int | None, paid: Iterable[Mapping[str, Any]] = ()) -> None:
        self.cost = 0.0
        self.calls = 0
        self.usage = Usage()
        self._max_cost, self._max_tokens = max_cost, max_tokens
        for record in paid:
            self._count(Usage(record["prompt_tokens"], record["completion_tokens"]), record["cost"])

    def check(self, in_flight: int = 0) -> None:
        """Raise BudgetError when a limit is reached, counting calls in flight at the average of those before."""
        tokens = self.usage.total
        share = 1 + in_flight / self.calls if self.calls else 1.0
        if self._max_cost is not None and self.cost * share >= self._max_cost:
            raise BudgetError(f"the budget of ${self._max_cost:g} is reached (${self.cost:.4f} spent)", _RAISE)
        if self._max_tokens is not None and tokens * share >= self._max_tokens:
            raise BudgetError(f"the budget of {self._max_tokens:,} tokens is reached ({tokens:,} used)", _RAISE)

    def afford(self, usage: Usage, cost: float, what: str) -> None:
        """Raise BudgetError when `what`, which may use so much, would pass a limit."""
        tokens = (self.usage + usage).total
        if self._max_cost is not None and self.cost + cost > self._max_cost:
            left = max(0.0, self._max_cost - self.cost)
            raise BudgetError(f"{what} may cost ${cost:.4f}, and ${left:.4f} of the budget is left", _RAISE)
        if self._max_tokens is not None and tokens > self._max_tokens:
            raise BudgetError(f"{what} may bring this store to {tokens:,} tokens, above the budget", _RAISE)

    def pay(self, usage: Usage, price: Price | None, share: float = 1.0) -> float:
        """Count a call at a share of its price; return its dollars, 0 for a model without a price."""
        cost = price.of(usage) * share if price else 0.0
        self._count(usage, cost)
        return cost

    def _count(self, usage: Usage, cost: float) -> None:
        self.usage += usage
        self.cost += cost
        self.calls += 1


_RAISE = "run the same command with a higher --max-cost or --max-tokens-total: what was paid is kept"

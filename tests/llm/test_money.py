from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.core.errors import BudgetError
from stepsearch_data.llm.chat import Usage
from stepsearch_data.llm.money import Budget, Price, price_of, tokens_in

PRICE = Price(2.0, 10.0)
MILLION = Usage(1_000_000, 0)


def paid(tokens: int, cost: float) -> dict[str, Any]:
    return {"prompt_tokens": tokens, "completion_tokens": 0, "cost": cost, "model": "m"}


def test_a_price_is_in_dollars_a_million_tokens() -> None:
    assert PRICE.of(Usage(1_000_000, 100_000)) == pytest.approx(3.0)
    assert PRICE.of(Usage()) == 0.0


def test_ones_own_price_wins_and_an_unknown_model_has_none() -> None:
    assert price_of("gpt-4o", {}) == Price(2.5, 10.0)
    assert price_of("gpt-4o", {"gpt-4o": (1.0, 2.0)}) == Price(1.0, 2.0)
    assert price_of("mine", {"mine": (0.0, 0.5)}) == Price(0.0, 0.5)
    assert price_of("mine", {}) is None


def test_tokens_are_estimated_from_characters() -> None:
    assert tokens_in("") == 1
    assert 90 <= tokens_in("word " * 80, "x") <= 110


def test_what_is_paid_is_counted() -> None:
    budget = Budget(None, None)
    assert budget.pay(Usage(1_000_000, 100_000), PRICE) == pytest.approx(3.0)
    assert budget.pay(MILLION, PRICE, share=0.5) == pytest.approx(1.0)
    assert budget.pay(Usage(5, 6), None) == 0.0
    assert (budget.calls, budget.usage) == (3, Usage(2_000_005, 100_006))
    assert budget.cost == pytest.approx(4.0)
    budget.check(in_flight=1_000_000)  # no limit, no end


@pytest.mark.parametrize(
    ("budget", "usage", "words"),
    [
        (Budget(4.0, None), MILLION, r"the budget of \$4 is reached \(\$4.0000 spent\)"),
        (Budget(None, 2_000_000), MILLION, r"2,000,000 tokens is reached \(2,000,000 used\)"),
    ],
)
def test_a_limit_stops_before_the_next_call(budget: Budget, usage: Usage, words: str) -> None:
    budget.check()
    budget.pay(usage, PRICE)
    budget.check()
    budget.pay(usage, PRICE)
    with pytest.raises(BudgetError, match=words) as stop:
        budget.check()
    assert stop.value.exit_code == 4
    assert "--max-cost" in stop.value.hint


def test_calls_in_flight_are_expected_to_cost_what_calls_did() -> None:
    budget = Budget(None, 10_000)
    for _ in range(50):
        budget.pay(Usage(100, 0), None)
    budget.check(in_flight=49)
    with pytest.raises(BudgetError):
        budget.check(in_flight=50)


@pytest.mark.parametrize("limits", [(0.0, None), (None, 0)])
def test_a_limit_of_nothing_pays_for_nothing(limits: tuple[float | None, int | None]) -> None:
    with pytest.raises(BudgetError):
        Budget(*limits).check()


def test_earlier_builds_of_the_store_count() -> None:
    earlier = [paid(500, 1.0), paid(500, 1.5)]
    assert Budget(None, None, earlier).cost == pytest.approx(2.5)
    Budget(2.6, 1_001, earlier).check()
    with pytest.raises(BudgetError):
        Budget(2.5, None, earlier).check()
    with pytest.raises(BudgetError):
        Budget(None, 1_000, earlier).check()


def test_what_would_pass_a_limit_cannot_be_afforded() -> None:
    budget = Budget(5.0, 1_500, [paid(500, 1.0)])
    budget.afford(Usage(1_000, 0), 4.0, "a batch")
    with pytest.raises(BudgetError, match=r"a batch may cost \$4.5000, and \$4.0000 of the budget is left"):
        budget.afford(Usage(), 4.5, "a batch")
    with pytest.raises(BudgetError, match="1,501 tokens"):
        budget.afford(Usage(1_000, 1), 0.0, "a batch")

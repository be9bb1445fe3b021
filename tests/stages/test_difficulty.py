from __future__ import annotations

import pytest

from stepsearch_data.stages.quality import band, difficulty, with_pass_rate
from tests.builders import query, search_round, vote

FOUND = [search_round(query(1, hop)) for hop in (1, 2)]
VOTES = [vote(query(1, hop)) for hop in (1, 2)]


@pytest.mark.parametrize(("hops", "score"), [(1, 0.0), (2, 0.0), (3, 0.25), (4, 0.5), (6, 0.5)])
def test_hops_are_half_of_it(hops: int, score: float) -> None:
    assert difficulty(hops, FOUND, VOTES) == score


def test_ranks_and_dropped_queries_are_a_quarter_each() -> None:
    second, missing = search_round(query(1, 1), gold_rank=2), search_round(query(1, 2), gold_rank=None)
    assert difficulty(2, [second, missing], VOTES) == pytest.approx((0.5 + 1) / 2 / 4)
    dropped = vote(query(2, 1), kept=False)
    assert difficulty(2, FOUND, [*VOTES, dropped, dropped]) == pytest.approx(0.5 / 4)


def test_rounds_that_find_nothing_on_purpose_do_not_count() -> None:
    lost = search_round(query(2, 1), role="distractor", gold_rank=None)
    assert difficulty(2, [lost, *FOUND], VOTES) == 0


def test_a_pass_rate_is_half_of_it() -> None:
    assert [with_pass_rate(0.5, rate) for rate in (1.0, 0.0, None)] == [0.25, 0.75, 0.5]


def test_bands() -> None:
    assert [band(score) for score in (0, 0.249, 0.25, 0.499, 0.5, 1)] == [
        "easy",
        "easy",
        *["medium"] * 2,
        *["hard"] * 2,
    ]

"""The card's picture: bars of what is released, the same bytes for equal stores."""

from __future__ import annotations

from pathlib import Path

from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.picture import bars, picture


def test_it_counts_the_released_trajectories(sample_store: Path) -> None:
    store = Store.open(sample_store)
    drawn = picture(store, store.manifest())
    assert drawn
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) < 100_000
    assert drawn == picture(store, store.manifest())


def test_a_bar_is_shaded_by_difficulty_from_easy_to_hard(sample_store: Path) -> None:
    spec = bars([("musique", 2, "hard", 3), ("musique", 2, "easy", 5)])
    assert [(row["difficulty"], row["trajectories"], row["level"]) for row in spec["data"]["values"]] == [
        ("hard", 3, 2),
        ("easy", 5, 0),
    ]

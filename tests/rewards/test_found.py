"""What searches found: by the whole text of documents, whatever their white space."""

from __future__ import annotations

from stepsearch_data.rewards import Found, found_by

A, B = "Ada wrote it.", "It was  written\nin 1843."


def test_each_search_is_described_after_those_before_it() -> None:
    searches = [("The q", [A, "Else."]), ("q!", ["It was written in 1843.", A]), ("r", []), ("s", [B, B])]
    assert list(found_by(searches, [A, B])) == [
        Found(seen=0, repeated=False, gold=[0], new_gold=1),
        Found(seen=1, repeated=True, gold=[0, 1], new_gold=1),
        Found(seen=0, repeated=False, gold=[], new_gold=0),
        Found(seen=2, repeated=False, gold=[1], new_gold=0),
    ]


def test_a_part_of_a_gold_paragraph_is_not_the_paragraph() -> None:
    assert [each.gold for each in found_by([("q", ["It was"]), ("r", [f"{B} More."])], [B])] == [[], []]

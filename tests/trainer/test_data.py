"""What is held out is drawn, and demonstrations begin as prompts do."""

from __future__ import annotations

from stepsearch_data.templates.examples import Example
from stepsearch_data.trainer.data import encode_demonstration, subsample


def question(number: int) -> Example:
    """A store's order: HotpotQA first, then MuSiQue by hops."""
    source, hops = ("hotpotqa", 2) if number < 100 else ("musique", 2 + number // 200)
    return Example(number, "validation", f"q{number}", source, "?", ("a",), hops, ())


STORE = [question(number) for number in range(500)]


def test_what_is_drawn_is_of_all_sources_and_hops() -> None:
    drawn = subsample(STORE, 60)
    assert len(drawn) == 60
    assert {each.source for each in drawn} == {"hotpotqa", "musique"}
    assert {each.hops for each in drawn} == {2, 3, 4}


def test_a_larger_draw_begins_with_the_smaller_one_whatever_the_order() -> None:
    assert subsample(STORE, 60)[:10] == subsample(reversed(STORE), 10)
    assert len(subsample(STORE, 1_000)) == len(STORE)


def test_each_source_draws_its_own() -> None:
    drawn = subsample(STORE, 30, each_source=True)
    assert [each.source for each in drawn].count("hotpotqa") == 30
    assert len(drawn) == 60
    assert set(subsample(STORE[:100], 30, each_source=True)) < set(drawn)


def test_a_demonstration_begins_as_a_prompt_does_and_learns_what_is_its_own() -> None:
    parts = [("who?", False), ("search", True), ("found", False), ("answer", True)]
    row = encode_demonstration(parts, lambda text: [ord(text[0])], lambda text: [1, ord(text[0]), 2], eos=3)
    assert row["input_ids"] == [1, ord("w"), 2, ord("s"), ord("f"), ord("a"), 3]
    assert row["labels"] == [-100, -100, -100, ord("s"), -100, ord("a"), 3]

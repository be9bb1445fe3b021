"""What is held out is drawn, and demonstrations begin as prompts do."""

from __future__ import annotations

from dataclasses import replace

from stepsearch_data.templates.examples import Example, Paragraph, Search, Step
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.characters import decode, encode
from stepsearch_data.trainer.data import demonstrate, subsample
from stepsearch_data.trainer.forms import Tags


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
    found, template = Paragraph("T", "x"), load_template("musique")
    search = Search("q", (found,), good=True)
    example = replace(question(0), steps=(Step(1, "gold", "s?", "f", search, ("q",), (found,)),))
    row = demonstrate(example, template, Tags(encode, lambda text: [1, *encode(text)]), encode, 3)
    assert decode(row["input_ids"][1:-1]) == template.opening("?") + template.response(example)
    assert (row["input_ids"][0], row["input_ids"][-1], row["labels"][-1]) == (1, 3, 3)
    own = decode([token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100][:-1])
    assert own == template.turn(example, 0).text + template.last(example).text

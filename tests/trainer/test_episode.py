"""The rules between policy and engine, with a tokenizer whose tokens are characters."""

from __future__ import annotations

import pytest

from stepsearch_data.exports.examples import Paragraph
from stepsearch_data.exports.template_file import load_template
from stepsearch_data.trainer.episode import Episode, Referee, Task
from stepsearch_data.trainer.settings import Limits

EOS = 0
TASK = Task("q1", "Who?", "Who?\n", ("Ada",))
FOUND = (Paragraph("T", "some text"),)
SEARCH = "<think> I look. </think>\n<search> who </search>"
ANSWER = "<answer> Ada </answer>"


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def referee(**limits: int) -> Referee:
    kept = Limits(**{"total": 4000, "turn": 400, "observation": 400, **limits})
    return Referee(load_template("musique"), kept, encode, lambda tokens: "".join(map(chr, tokens)), frozenset({EOS}))


def written(episode: Episode) -> str:
    """What the policy wrote, by the mask."""
    return "".join(chr(token) for token, own in zip(episode.tokens, episode.own, strict=True) if own)


def test_a_search_is_asked_and_its_documents_are_shown() -> None:
    rules = referee()
    episode = rules.begin(TASK)
    query = rules.turn(episode, encode(SEARCH))
    assert query == "who"
    rules.found(episode, query, FOUND)
    assert episode.text == f"{SEARCH}\n<information> Doc 1<## Title: T ##> some text </information>\n"
    assert "".join(map(chr, episode.tokens)) == episode.text
    assert written(episode) == SEARCH
    assert not episode.ended


def test_a_search_knows_its_last_token_and_character() -> None:
    rules = referee()
    episode = rules.begin(TASK)
    for _ in range(2):
        rules.found(episode, rules.turn(episode, encode(f"{SEARCH} ")) or "", FOUND)
    for search in episode.searches:
        assert episode.text[: search.character].endswith("</search>")
        assert episode.own[search.token]
        assert not episode.own[search.token + 1]


def test_an_answer_ends_the_episode() -> None:
    rules = referee()
    episode = rules.begin(TASK)
    assert rules.turn(episode, encode(ANSWER)) is None
    assert (episode.ended, episode.text, all(episode.own)) == ("answer", ANSWER, True)


@pytest.mark.parametrize(
    "said", ["I do not know", "<search> </search>", "</search>", "who </search>", "<search> a <search>", ""]
)
def test_what_is_neither_a_search_nor_an_answer_is_warned_and_tried_again(said: str) -> None:
    rules = referee()
    episode = rules.begin(TASK)
    assert rules.turn(episode, encode(said)) is None
    assert not episode.ended
    assert episode.invalid == 1
    assert written(episode) == said
    assert "<warning>" in episode.text
    assert rules.turn(episode, encode(SEARCH)) == "who"


def test_the_query_is_that_of_the_last_opening_tag() -> None:
    rules = referee()
    assert rules.turn(rules.begin(TASK), encode("<search> a <search> b </search>")) == "b"


def test_the_end_of_the_text_ends_the_episode_and_is_no_part_of_it() -> None:
    rules = referee()
    episode = rules.begin(TASK)
    rules.turn(episode, [*encode("I stop."), EOS])
    assert (episode.ended, episode.text) == ("end of text", "I stop.")
    assert episode.own == [True] * 8


def test_the_end_of_the_text_after_an_answer_is_an_answer() -> None:
    rules = referee()
    episode = rules.begin(TASK)
    rules.turn(episode, [*encode(ANSWER), EOS])
    assert episode.ended == "answer"


def test_after_the_last_search_the_policy_is_told_and_may_only_answer() -> None:
    rules = referee(turns=2)
    episode = rules.begin(TASK)
    rules.found(episode, rules.turn(episode, encode(SEARCH)) or "", FOUND)
    assert "No search is left" not in episode.text
    rules.found(episode, rules.turn(episode, encode(SEARCH)) or "", FOUND)
    assert episode.text.endswith("</information>\n<warning> No search is left. Answer now. </warning>\n")
    assert rules.turn(episode, encode(SEARCH)) is None
    assert episode.ended == "no answer"
    assert len(episode.searches) == 2


def test_an_invalid_turn_costs_a_turn() -> None:
    rules = referee(turns=1)
    episode = rules.begin(TASK)
    rules.turn(episode, encode("hm"))
    assert "No search is left" in episode.text
    rules.turn(episode, encode(ANSWER))
    assert episode.ended == "answer"


def test_a_long_observation_is_cut_and_still_closed() -> None:
    rules = referee(observation=80)
    episode = rules.begin(TASK)
    rules.turn(episode, encode(SEARCH))
    rules.found(episode, "who", [Paragraph("T", "word " * 100)] * 3)
    shown = episode.text.removeprefix(SEARCH)
    assert shown.startswith("\n<information> Doc 1")
    assert shown.endswith(" </information>\n")
    assert len(shown.strip()) <= 80


def test_an_observation_that_does_not_fit_ends_the_episode() -> None:
    rules = referee(total=100)
    episode = rules.begin(TASK)
    rules.turn(episode, encode(SEARCH))
    rules.found(episode, "who", [Paragraph("T", "word " * 30)])
    assert episode.ended == "length"
    assert all(episode.own)


def test_a_turn_may_be_as_long_as_the_rest_of_the_episode() -> None:
    rules = referee(total=100, turn=60)
    episode = rules.begin(TASK)
    assert rules.budget(episode) == 60
    episode.append(encode("x" * 70), "x" * 70, own=True)
    assert rules.budget(episode) == 100 - 5 - 70
    episode.append(encode("x" * 70), "x" * 70, own=True)
    assert rules.budget(episode) == 0


def test_a_long_prompt_keeps_its_end() -> None:
    episode = referee(total=20).begin(Task("q", "", "a question that is long", ()))
    assert "".join(map(chr, episode.prompt)) == "at is long"

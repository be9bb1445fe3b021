"""The rules between policy and engine, with a tokenizer whose tokens are characters."""

from __future__ import annotations

import string
from collections.abc import Sequence

import pytest

from stepsearch_data.rewards import read
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.rollout import roll_out
from stepsearch_data.trainer.search_env import Episode, SearchEnv, Task

EOS = 0
TASK = Task("q1", "Who?", "Who?\n", ("Ada",))
FOUND = (Paragraph("T", "some text"),)
SEARCH = "<think> I look. </think>\n<search> who </search>"
ANSWER = "<answer> Ada </answer>"


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def env(**limits: int) -> SearchEnv:
    kept = Limits(**{"max_length": 4000, "max_new_tokens": 400, "max_obs_length": 400, **limits})
    return SearchEnv(load_template("musique"), kept, encode, lambda tokens: "".join(map(chr, tokens)), frozenset({EOS}))


def begin(rules: SearchEnv, task: Task = TASK) -> tuple[SearchEnv, Episode]:
    return rules, rules.reset(task)


def written(episode: Episode) -> str:
    """What the policy wrote, by the mask."""
    return "".join(chr(token) for token, own in zip(episode.response_ids, episode.response_mask, strict=True) if own)


def test_a_search_is_asked_and_its_documents_are_shown() -> None:
    rules, episode = begin(env())
    query = rules.step(episode, encode(SEARCH))
    assert query == "who"
    rules.observe(episode, query, FOUND)
    assert episode.text == f"{SEARCH}\n<information> Doc 1<## Title: T ##> some text </information>\n"
    assert "".join(map(chr, episode.response_ids)) == episode.text
    assert written(episode) == SEARCH
    assert not episode.ended


def test_a_search_knows_its_last_token_and_character() -> None:
    rules, episode = begin(env())
    for _ in range(2):
        rules.observe(episode, rules.step(episode, encode(f"{SEARCH} ")) or "", FOUND)
    for search in episode.searches:
        assert episode.text[: search.character].endswith("</search>")
        assert episode.response_mask[search.token]
        assert not episode.response_mask[search.token + 1]


def test_an_episode_knows_what_the_environment_wrote() -> None:
    rules, episode = begin(env(max_turns=3))
    rules.step(episode, encode("hm"))
    rules.observe(episode, rules.step(episode, encode(SEARCH)) or "", FOUND)
    rules.step(episode, encode(ANSWER))
    observed = [episode.text[start:end] for start, end in episode.observations]
    assert [text.split()[0] for text in observed] == ["<warning>", "<information>"]
    assert episode.text == f"hm{observed[0]}{SEARCH}{observed[1]}{ANSWER}"


def test_a_warning_is_no_search_and_no_answer() -> None:
    """It names the tags that it asks for."""
    rules, episode = begin(env(max_turns=1))
    rules.step(episode, encode("<think> hm </think>"))
    rules.step(episode, encode("I do not know."))
    rollout = read(episode.text, observations=episode.observations)
    assert "<search>" in episode.text
    assert (rollout.queries, rollout.answer) == ((), None)
    assert read(episode.text).answer is None


@pytest.mark.parametrize("end", [[], [EOS]], ids=["the tag", "the end of the text"])
def test_an_answer_ends_the_episode(end: list[int]) -> None:
    rules, episode = begin(env())
    assert rules.step(episode, encode(ANSWER) + end) is None
    assert (episode.ended, episode.text, all(episode.response_mask)) == ("answer", ANSWER, True)


@pytest.mark.parametrize(
    "said", ["I do not know", "<search> </search>", "</search>", "who </search>", "<search> a <search>", ""]
)
def test_what_is_neither_a_search_nor_an_answer_is_warned_and_tried_again(said: str) -> None:
    rules, episode = begin(env())
    assert rules.step(episode, encode(said)) is None
    assert not episode.ended
    assert episode.invalid == 1
    assert written(episode) == said
    assert "<warning>" in episode.text
    assert rules.step(episode, encode(SEARCH)) == "who"


def test_the_query_is_that_of_the_last_opening_tag() -> None:
    rules = env()
    assert rules.step(rules.reset(TASK), encode("<search> a <search> b </search>")) == "b"


def test_the_end_of_the_text_ends_the_episode_and_is_no_part_of_it() -> None:
    rules, episode = begin(env())
    rules.step(episode, [*encode("I stop."), EOS])
    assert (episode.ended, episode.text) == ("end of text", "I stop.")
    assert episode.response_mask == [True] * 8


def test_after_the_last_search_the_policy_is_told_and_may_only_answer() -> None:
    rules, episode = begin(env(max_turns=2))
    rules.observe(episode, rules.step(episode, encode(SEARCH)) or "", FOUND)
    assert "No search is left" not in episode.text
    rules.observe(episode, rules.step(episode, encode(SEARCH)) or "", FOUND)
    assert episode.text.endswith("</information>\n<warning> No search is left. Answer now. </warning>\n")
    assert rules.step(episode, encode(SEARCH)) is None
    assert episode.ended == "no answer"
    assert len(episode.searches) == 2


def test_an_invalid_turn_costs_a_turn() -> None:
    rules, episode = begin(env(max_turns=1))
    rules.step(episode, encode("hm"))
    assert "No search is left" in episode.text
    rules.step(episode, encode(ANSWER))
    assert episode.ended == "answer"


def test_a_long_observation_is_cut_and_still_closed() -> None:
    rules, episode = begin(env(max_obs_length=80))
    rules.step(episode, encode(SEARCH))
    rules.observe(episode, "who", [Paragraph("T", "word " * 100)] * 3)
    shown = episode.text.removeprefix(SEARCH)
    assert shown.startswith("\n<information> Doc 1")
    assert shown.endswith(" </information>\n")
    assert len(shown.strip()) <= 80


def test_an_observation_that_does_not_fit_ends_the_episode() -> None:
    rules, episode = begin(env(max_length=100))
    rules.step(episode, encode(SEARCH))
    rules.observe(episode, "who", [Paragraph("T", "word " * 30)])
    assert episode.ended == "length"
    assert all(episode.response_mask)
    assert not episode.searches  # nobody has seen what it found


def test_a_turn_may_be_as_long_as_the_rest_of_the_episode() -> None:
    rules, episode = begin(env(max_length=100, max_new_tokens=60))
    assert rules.max_new_tokens(episode) == 60
    episode.append(encode("x" * 70), "x" * 70, by_policy=True)
    assert rules.max_new_tokens(episode) == 100 - 5 - 70
    episode.append(encode("x" * 70), "x" * 70, by_policy=True)
    assert rules.max_new_tokens(episode) == 0


def test_a_long_prompt_keeps_its_end() -> None:
    episode = env(max_length=20).reset(Task("q", "", "a question that is long", ()))
    assert "".join(map(chr, episode.prompt_ids)) == "at is long"


# ---- tokens that reach beyond a stop

PIECES = [*string.printable, "></", "><", ">\n", "</search></think>"]
"""A vocabulary as byte-level BPE makes it: a tag may end within a token."""


def in_pieces(text: str) -> list[int]:
    """The longest piece first."""
    tokens = []
    while text:
        fitting = [at for at, piece in enumerate(PIECES) if text.startswith(piece)]
        tokens.append(max(fitting, key=lambda at: len(PIECES[at])))
        text = text[len(PIECES[tokens[-1]]) :]
    return tokens


def from_pieces(tokens: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in tokens)


def by_pieces() -> SearchEnv:
    limits = Limits(max_length=4000, max_new_tokens=400, max_obs_length=400)
    return SearchEnv(load_template("musique"), limits, in_pieces, from_pieces, frozenset())


@pytest.mark.parametrize(("said", "token"), [("<search> who </search></", "></"), ("<search> who </search><", "><")])
def test_what_is_beyond_a_stop_was_not_said(said: str, token: str) -> None:
    """Rewards, mask and the next turn's text are those of a turn that ends with its tag."""
    rules, episode = begin(by_pieces(), TASK_OF_LETTERS)
    turn = in_pieces(said)
    assert PIECES[turn[-1]] == token
    assert from_pieces(rules.replacement(turn)) == ">"
    assert rules.step(episode, turn) == "who"
    rules.observe(episode, "who", ())
    assert episode.text.startswith("<search> who </search>\n<information>")
    assert from_pieces(episode.response_ids) == episode.text  # what the next turn reads
    last = len(turn) - 1
    assert episode.response_mask[:last] == [True] * last
    assert not any(episode.response_mask[last:])  # nobody sampled `>`, and the token that was sampled stands nowhere
    assert episode.searches[0].token == last - 1
    assert episode.turn_end == len(turn)


def test_a_line_end_after_a_tag_stays_as_it_was_sampled() -> None:
    turn = in_pieces("<search> who </search>\n")
    assert PIECES[turn[-1]] == ">\n"
    assert by_pieces().replacement(turn) == []


def test_a_turn_of_one_token_stays_as_it_was_sampled() -> None:
    rules, episode = begin(by_pieces(), TASK_OF_LETTERS)
    assert rules.step(episode, [PIECES.index("</search></think>")]) is None
    assert episode.response_mask[0]
    assert episode.invalid == 1


def test_an_answer_that_is_written_on_is_an_answer() -> None:
    rules, episode = begin(by_pieces(), TASK_OF_LETTERS)
    rules.step(episode, in_pieces("<answer> ada </answer></"))
    assert (episode.ended, episode.text) == ("answer", "<answer> ada </answer>")


def test_a_sampler_reads_what_was_said() -> None:
    """The next turn goes on from the tag's end, not from the token that reached beyond."""
    rules, sampler = by_pieces(), Scripted(["<search> who </search></", "<answer> ada </answer>"])
    (episode,) = roll_out([TASK_OF_LETTERS], rules, sampler, lambda queries, _: [[] for _ in queries])
    assert episode.ended == "answer"
    assert from_pieces(sampler.text) == TASK_OF_LETTERS.prompt + episode.text


TASK_OF_LETTERS = Task("q1", "who", "who", ("ada",))


class Scripted:
    """A `Sampler` of one row that writes these turns, and keeps all that it has read."""

    def __init__(self, turns: list[str]) -> None:
        self.turns, self.text = turns, list[int]()

    def start(self, prompts: Sequence[list[int]]) -> None:
        self.text = list(prompts[0])

    def generate(self, _: Sequence[int]) -> list[list[int]]:
        written = in_pieces(self.turns.pop(0))
        self.text += written
        return [written]

    def replace_last(self, _: int, tokens: Sequence[int]) -> None:
        self.text[-1:] = tokens

    def extend(self, _: Sequence[int], observations: Sequence[list[int]]) -> None:
        for seen in observations:
            self.text += seen

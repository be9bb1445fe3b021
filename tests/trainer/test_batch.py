"""An episode's rewards lie on the tokens that earned them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from stepsearch_data.rewards import PAPER, REFERENCE, score_rollout, without
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.batch import collate
from stepsearch_data.trainer.episode_score import score_episode
from stepsearch_data.trainer.search_env import Episode, Search, Task

GOLD = Paragraph("Barber", "The Barber of Seville was composed by Gioachino Rossini")
OTHER = Paragraph("Seville", "Seville is a city of oranges")
TASK = Task("q", "?", "?\n", ("Rossini",), [["barber composer"]], (GOLD,))


def episode(*turns: tuple[str, Paragraph | None]) -> Episode:
    """Tokens are words and white space; a turn with a document is a search that was answered."""
    made = Episode(TASK, [1])
    for text, document in turns:
        made.append([7] * len(text.split()), text, by_policy=True)
        if document:
            made.searches.append(Search("", (document,), len(made.response_ids) - 1, len(made.text)))
            shown = f"\n<information> Doc 1<## Title: {document.title} ##> {document.text} </information>\n"
            made.append([7] * len(shown.split()), shown, by_policy=False)
    return made


SEARCH = "<think> so </think> <search> barber composer </search>"
GOOD = [(SEARCH, OTHER), (SEARCH, GOLD), ("<think> yes </think> <answer> Rossini </answer>", None)]


def test_each_search_and_the_last_token_earn_their_part() -> None:
    made = episode(*GOOD)
    got = score_episode(made)
    scores = score_rollout(made.text, ["Rossini"], [["barber composer"]], [GOLD.text])
    first, second, last = got.token_rewards
    assert first == (made.searches[0].token, scores.step_rewards[0])
    assert second == (made.searches[1].token, scores.step_rewards[1])
    assert last[0] == len(made.response_ids) - 1
    assert last[1] == pytest.approx(1 + 0.618)
    assert second[1] > first[1]
    assert got.total == pytest.approx(sum(scores.step_rewards) + 1.618)


def test_a_made_up_result_earns_no_step_reward() -> None:
    made = episode((f"{SEARCH} <information> {GOLD.text} </information> <answer> Rossini </answer>", None))
    assert [token for token, _ in score_episode(made).token_rewards] == [len(made.response_ids) - 1]


def test_the_last_token_of_the_policy_earns_the_score_where_an_observation_ends_the_episode() -> None:
    made = episode(*GOOD[:1])
    assert score_episode(made).token_rewards[-1][0] == made.searches[0].token


def test_without_step_rewards_only_the_score_is_left() -> None:
    got = score_episode(episode(*GOOD), without(PAPER, "step"))
    assert [reward for _, reward in got.token_rewards] == [0.0, 0.0, pytest.approx(1.618)]


def test_the_released_preset_forfeits_the_step_rewards_of_a_wrong_format() -> None:
    got = score_episode(episode(*GOOD[:2], ("no answer", None)), REFERENCE)
    assert [reward for _, reward in got.token_rewards] == [-1.0]


def test_an_episode_without_a_word_of_the_policy_earns_nothing() -> None:
    assert score_episode(Episode(TASK, [1])).token_rewards == []


def masked(*response_mask: bool) -> Episode:
    """An episode whose tokens are these, the policy's and others; its prompt has none."""
    return Episode(TASK, [], [7] * len(response_mask), list(response_mask))


def test_step_rewards_and_the_score_add_up_on_the_tokens_that_earned_them() -> None:
    rows = [masked(False, True, True, False, True), masked(False, True, False, False, False)]
    batch = collate(rows, [[(2, 0.5), (4, -0.25), (4, 1.0)], [(1, 2.0)]], 0, torch.device("cpu"))
    assert batch.rewards.tolist() == [[0, 0, 0.5, 0, 0.75], [0, 2.0, 0, 0, 0]]


def test_an_observation_token_cannot_earn_anything() -> None:
    with pytest.raises(ValueError, match="row 0: token 3"):
        collate([masked(True, True, True, False)], [[(3, 1.0)]], 0, torch.device("cpu"))


def test_rows_of_like_length_share_a_part_of_so_many_tokens() -> None:
    rows = [masked(*[True] * length) for length in (3, 9, 4, 1, 8, 3)]
    batch = collate(rows, [[]] * len(rows), 0, torch.device("cpu"))
    assert [part.tolist() for part in batch.cut(12)] == [[1], [4], [2, 0, 5], [3]]
    assert [part.tolist() for part in batch.cut(12, 5)] == [[1], [4], [2, 0], [5], [3]]
    assert [part.tolist() for part in batch.cut(5)] == [[1], [4], [2], [0], [5], [3]]  # one row may be longer
    assert len(batch.cut(99, 9)) == len(rows)

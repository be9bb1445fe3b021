"""What a person sees: in a terminal, in a log, of a rollout, and of a policy that collapses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO

import pytest

pytest.importorskip("torch", reason="needs torch: make test-train")

from rich.console import Console

from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.callbacks.collapse import CollapseDetector
from stepsearch_data.trainer.callbacks.console import console_callback
from stepsearch_data.trainer.callbacks.sample import sample
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.episode_score import EpisodeScore, score_episode
from stepsearch_data.trainer.search_env import Episode, SearchEnv, Task

GOLD = Paragraph("Barber", "The Barber of Seville is an opera by Gioachino Rossini.")
OTHER = Paragraph("Seville", "Seville is a city. " * 20)
TASK = Task("q1", "Who composed it?", "Q:", ("Rossini",), [["Barber composer"]], (GOLD,))
SEARCH = "<think> I look. </think>\n<search> Barber composer </search>"
METRICS = {
    "reward": 0.5,
    "f1": 0.25,
    "em": 0.125,
    "searches": 2.0,
    "kl": 0.01,
    "entropy": 1.25,
    "tokens_per_second": 1234.0,
}
MORE = ("key", "gain", "redundancy", "invalid", "value_loss", "explained_variance")


def played(*turns: str, found: Sequence[Sequence[Paragraph]] = ()) -> Episode:
    """An episode in which the policy wrote these turns, and its searches found these documents."""
    rules = SearchEnv(
        load_template("musique"),
        Limits(max_length=9000),
        lambda text: [*map(ord, text)],
        lambda ids: "".join(map(chr, ids)),
        frozenset(),
    )
    episode, results = rules.reset(TASK), iter(found)
    for turn in turns:
        query = rules.step(episode, [*map(ord, turn)])
        if query:
            rules.observe(episode, query, next(results))
    return episode


GOOD = played(SEARCH, "<observation> Found. </observation>\n<answer> Rossini </answer>", found=[[GOLD, OTHER]])
SILENT = played("<answer> no idea </answer>")
ENDLESS = played("What is asked?", SEARCH, found=[[OTHER]])


def test_a_sample_shows_each_rounds_reward_beside_its_search_and_documents_in_short() -> None:
    got = score_episode(GOOD)
    lines = sample(GOOD, got).plain.splitlines()
    gain = got.token_rewards[0][1]
    assert gain > 0.5
    assert lines[:4] == [
        "question  Who composed it?",
        "gold      Rossini",
        "<think> I look. </think>",
        f"<search> Barber composer </search>  {gain:+.3f}",
    ]
    assert lines[4] == "  1. Barber: The Barber of Seville is an opera by Gioachino Rossini."
    assert lines[5].startswith("  2. Seville: Seville is a city. Seville")
    assert len(lines[5]) <= 100
    assert lines[5].endswith("…")
    assert lines[6:8] == ["<observation> Found. </observation>", "<answer> Rossini </answer>"]
    total = f"{gain + 1.618:+.3f}"
    assert lines[8] == f"earned    {total}: rounds {gain:+.3f}, score +1.618 (F1 1.000, key 1.000); ended by answer"


def test_a_sample_shows_what_stands_outside_of_tags_and_warnings_and_made_up_results() -> None:
    made_up = played("\x1b[31mWhat?", f"{SEARCH} <information> I found it </information> <answer> x </answer>")
    lines = sample(made_up, score_episode(made_up)).plain.splitlines()
    assert "\\x1b[31mWhat?" in lines
    assert any(line.startswith("<warning> This is neither") for line in lines)
    assert "<information> I found it </information>" in lines
    assert "<search> Barber composer </search>" in lines


def test_an_unclosed_block_swallows_no_search() -> None:
    unclosed = played(f"<observation> half {SEARCH}", "<answer> x </answer>", found=[[GOLD]])
    lines = sample(unclosed, score_episode(unclosed)).plain.splitlines()
    assert "<observation> half" in lines
    assert "<think> I look. </think>" in lines
    assert any(line.startswith("<search> Barber composer </search>  +") for line in lines)


def test_a_right_answer_is_green_and_a_wrong_one_red() -> None:
    def style(episode: Episode) -> str:
        text = sample(episode, score_episode(episode))
        at = text.plain.index("<answer>")
        return next(str(span.style) for span in text.spans if span.start == at)

    assert (style(GOOD), style(SILENT)) == ("green", "red")


def console(width: int | None = None) -> Console:
    """Of a terminal so wide, or of a file."""
    return Console(file=StringIO(), force_terminal=width is not None, width=width, color_system=None)


def printed(of: Console) -> str:
    assert isinstance(of.file, StringIO)
    return of.file.getvalue()


def show(to: Console, updates: int, episode: Episode = GOOD, sample_every: int = 0, more: Sequence[str] = ()) -> str:
    metrics = METRICS | dict.fromkeys(more, 0.75)
    got: list[EpisodeScore] = [score_episode(episode)]
    with console_callback(updates, sample_every=sample_every, console=to) as watch:
        watch({"update": 0, "eval_em": 0.04}, [], [])
        for update in range(1, updates + 1):
            watch({"update": update, **metrics, **({"eval_em": 0.5} if update == 2 else {})}, [episode], got)
    return printed(to)


def test_without_a_terminal_each_update_is_one_line() -> None:
    first, *lines = show(console(), 3).splitlines()
    assert first.split("  ")[:2] == ["update 0 of 3", "held out 0.040"]
    assert [line.split("  ")[:3] for line in lines] == [
        [f"update {n} of 3", "reward 0.500", "F1 0.250"] for n in (1, 2, 3)
    ]
    assert "tokens/s 1,234  held out 0.500" in lines[1]
    assert all(re.search(r"EM 0\.125  searches 2\.00  KL 0\.010  .* 0:00:0\d left$", line) for line in lines)


def test_a_terminal_shows_a_table_of_the_last_updates() -> None:
    last = show(console(140), 20).rpartition("update  reward")[2].splitlines()
    assert last[0].split() == ["F1", "EM", "searches", "KL", "entropy", "tokens/s", "held", "out"]  # no critic's
    assert [line.split()[0] for line in last[1:13]] == [str(n) for n in range(9, 21)]
    assert last[12].split() == ["20", "0.500", "0.250", "0.125", "2.00", "0.010", "1.250", "1,234"]
    assert re.fullmatch(r"20 of 20 updates   0:00:00 left   held-out exact match 0\.500 at update 2", last[13].rstrip())


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_of_the_table_is_wider_than_the_terminal(width: int) -> None:
    plain = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", show(console(width), 3, more=MORE).replace("\x1b[1A", "\n"))
    assert width - 20 < max(map(len, plain.splitlines())) <= width


def test_every_few_updates_a_rollout_is_printed() -> None:
    shown = show(console(), 5, sample_every=2)
    assert [f"a rollout of update {n}" in shown for n in range(1, 6)] == [False, True, False, True, False]
    assert "<search> Barber composer </search>  +" in shown


@pytest.mark.parametrize(
    ("episode", "warning"),
    [(SILENT, "almost no rollout searches"), (ENDLESS, "almost no rollout ends with an answer")],
)
def test_a_collapsed_policy_is_warned_of_once_with_a_hint(episode: Episode, warning: str) -> None:
    lines = show(console(), 6, episode).splitlines()
    warned = [at for at, line in enumerate(lines) if line.startswith("warning: ")]
    assert [lines[at] for at in warned] == [f"warning: update 3: {warning}"]
    assert lines[warned[0] + 1].startswith("hint: ")


def told(*updates: tuple[dict[str, float], list[Episode]]) -> list[list[str]]:
    lookout = CollapseDetector(patience=2)
    return [[sign.message for sign in lookout(metrics, episodes)] for metrics, episodes in updates]


def test_a_sign_must_last_and_is_told_again_when_it_comes_back() -> None:
    silent = ({"em": 0.0}, [SILENT] * 19 + [GOOD])  # 95 % do not search
    good = ({"em": 0.0}, [SILENT] * 18 + [GOOD] * 2)
    found = told(silent, good, silent, silent, silent, good, silent, silent)
    assert [bool(each) for each in found] == [False, False, False, True, False, False, False, True]


def test_certainty_and_distance_are_signs_only_while_most_answers_are_wrong() -> None:
    for sign, words in (
        ({"entropy": 0.001, "em": 0.1}, "entropy is near 0"),
        ({"kl": 1.5, "em": 0.1}, "KL to the reference"),
    ):
        assert words in told((sign, [GOOD]), (sign, [GOOD]))[1][0]
        solved = sign | {"em": 0.9}
        assert told((solved, [GOOD]), (solved, [GOOD])) == [[], []]


def test_healthy_training_shows_no_sign() -> None:
    assert told(*[({**METRICS}, [GOOD, SILENT])] * 5) == [[]] * 5
    assert told(*[({"eval_em": 0.0}, [])] * 5) == [[]] * 5

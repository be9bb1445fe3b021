"""The presets: the paper by hand, and every switch between it and the reference code alone."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from math import isclose, log
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.rewards import (
    ABLATIONS,
    PAPER,
    PRESETS,
    REFERENCE,
    RewardConfig,
    Scores,
    parse,
    score_rollout,
    step_weight,
    token_rewards,
    without,
)
from stepsearch_data.scoring.scorer import configure
from tests.rewards.test_rollout import texts

GOLDS = ["alpha beta", "gamma epsilon"]
KEYS = [["tosca composer"], ["puccini birthplace"]]


def block(*documents: str) -> str:
    shown = "\n".join(f"Doc {n}<## Title: T{n} ##> {text}" for n, text in enumerate(documents, start=1))
    return f"<information> {shown} </information>\n"


def search(query: str) -> str:
    return f"<think> t </think>\n<search> {query} </search>\n"


GOOD = (
    search("tosca composer")
    + block("alpha beta", "zeta")
    + search("puccini")
    + block("gamma epsilon", "alpha beta")
    + "<think> done </think><answer> Lucca Italy </answer>"
)


def score(text: str, config: RewardConfig, **others: Any) -> Scores:
    given_: dict[str, Any] = {"target": ["Lucca"], "search_keys": KEYS, "support_docs": GOLDS, **others}
    return score_rollout(text, config=config, **given_)


def close(found: object, expected: object) -> bool:
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    assert isinstance(found, int | float)
    assert isinstance(expected, int | float)
    return isclose(found, expected, abs_tol=1e-9)


def test_the_paper_by_hand() -> None:
    found = score(GOOD, PAPER)
    assert found.format_ok
    assert isclose(found.answer_correct, 2 / 3)
    assert isclose(found.search_key_score, (1 + 2 / 3) / 2)
    assert isclose(found.score, 2 / 3 + 0.618 * (1 + 2 / 3) / 2)
    assert close(found.information_gain, [0.5, 0.5])
    assert found.redundancy_penalty == [0.0, 0.5]
    assert close(found.step_scores, [0.5, 0.0])
    assert found.step_rewards == found.step_scores


def test_the_paper_gives_nothing_for_an_answer_in_the_wrong_format() -> None:
    found = score(GOOD + " trailing", PAPER)
    assert isclose(found.answer_correct, 2 / 3)
    assert isclose(found.score, 0.618 * (1 + 2 / 3) / 2)  # the searches are in the right one
    assert close(found.step_scores, [0.5, 0.0])
    unpaired = score(GOOD + "<search>", PAPER)
    assert unpaired.search_key_score == unpaired.score == 0.0


def test_ablations_take_one_part_away() -> None:
    whole = score(GOOD, PAPER)
    assert score(GOOD, without(PAPER, "key")) == replace(whole, score=whole.answer_correct)
    for part, steps in (("gain", [0.0, -0.5]), ("penalty", [0.5, 0.5]), ("step", [0.0, 0.0])):
        found = score(GOOD, without(PAPER, part))
        assert close(found.step_scores, steps), part
        assert found == replace(whole, step_scores=found.step_scores, step_rewards=found.step_rewards)
    assert set(ABLATIONS) == {"key", "gain", "penalty", "step"}


TWICE = search("q") + block("zeta", "zeta") + "<answer>Lucca</answer>"
REFITTED = ((log(4 / 3) + 1) ** 2 / ((log(4 / 3) + 1) ** 2 + (log(2) + 1) ** 2)) / 2
STEPS = ("step_scores", "step_rewards")
GAINS = ("information_gain", *STEPS)
Changed = dict[str, Any]
# Departure of the reference code, a rollout that shows it, and what changes, by hand.
DEPARTURES: dict[str, tuple[str, Changed]] = {
    "failure_score": (  # 1
        GOOD + " trailing",
        {"score": -1.0, "search_key_score": 0.0, **{key: [] for key in STEPS}},
    ),
    "loose_format": (  # 2: no thought, no search, but the answer is last
        "<answer>Lucca</answer>",
        {"score": 1.0, "format_ok": True, "search_format_ok": True},
    ),
    "step_scale": (GOOD, {"step_rewards": [0.8, 0.0]}),  # 4
    "one_key_per_query": (  # 5
        GOOD.replace("> puccini <", "> tosca composer x <"),
        {"search_key_score": 0.4, "score": 2 / 3 + 0.618 * 0.4},
    ),
    "unanswered_count": (  # the last search of all was not run
        search("tosca composer") + block("alpha beta") + search("puccini birthplace"),
        {"search_key_score": 1.0, "score": 0.618},
    ),
    "keep_next_label": (  # 6: `alpha beta Doc 2` was seen first, `alpha beta` is new
        GOOD,
        {"redundancy_penalty": [0.0, 0.0], **{key: [0.0, 0.0] for key in GAINS}},
    ),
    "repeats_in_round": (TWICE, {"redundancy_penalty": [0.5], **{key: [-0.5] for key in STEPS}}),  # 7
    "refit_tfidf": (  # 8
        search("q") + block("gamma delta") + "<answer>Lucca</answer>",
        {key: [REFITTED] for key in GAINS},
    ),
    "lazy_patterns": (  # 9: the first result was cut, so the second search is swallowed, and one query was answered
        GOOD.replace("</information>", "", 1),
        {
            "redundancy_penalty": [0.0],
            **{key: [1.0] for key in GAINS},
            "search_key_score": 0.5,
            "score": 2 / 3 + 0.618 * 0.5,
        },
    ),
    "steps_need_gold": (GOOD, {key: [] for key in ("redundancy_penalty", *GAINS)}),  # asked without gold paragraphs
    "decimals": (  # 13
        GOOD,
        {
            "answer_correct": 0.6667,
            "search_key_score": (1 + 0.6667) / 2,
            "score": 0.6667 + 0.618 * (1 + 0.6667) / 2,
        },
    ),
}


@pytest.mark.parametrize("name", DEPARTURES)
def test_each_departure_is_one_switch(name: str) -> None:
    text, changed = DEPARTURES[name]
    others: Changed = {"support_docs": []} if name == "steps_need_gold" else {}
    paper = score(text, PAPER, **others)
    flipped = score(text, replace(PAPER, **{name: getattr(REFERENCE, name)}), **others)
    if name == "keep_next_label":  # its gains are those of documents with one word more
        changed = {key: getattr(flipped, key) if key != "redundancy_penalty" else changed[key] for key in changed}
    for field in fields(Scores):
        before, after = getattr(paper, field.name), getattr(flipped, field.name)
        if field.name in changed:
            assert before != after, field.name
            same = after == changed[field.name] if isinstance(after, bool) else close(after, changed[field.name])
            assert same, (field.name, after)
        else:
            assert before == after, field.name


def test_the_switches_that_show_elsewhere() -> None:
    """3: γ_key, for which the paper has no number; 11: the place of step rewards, by token."""
    assert isclose(score(GOOD, replace(PAPER, key_weight=1.0)).score, 2 / 3 + (1 + 2 / 3) / 2)
    offsets = [(at, at + 1) for at in range(len(GOOD))]
    found, rollout = score(GOOD, PAPER), parse(GOOD)
    at_end = token_rewards(found, rollout, offsets)
    at_search = token_rewards(found, rollout, offsets, replace(PAPER, reward_on_search=True))
    assert at_end[-1] == at_search[-1] == found.score
    assert at_end[GOOD.index("</information>") + len("</information>") - 1] == 0.5
    assert at_search[GOOD.index("</search>") + len("</search>") - 1] == 0.5
    assert isclose(at_end.sum(), at_search.sum())


def test_what_neither_preset_does() -> None:
    """The second query of GOOD is new, so the document that comes again costs nothing."""
    assert score(GOOD, replace(PAPER, repeated_queries_only=True)).step_scores == pytest.approx([0.5, 0.5])
    again = score(GOOD.replace("> puccini <", "> Tosca, composer <"), replace(PAPER, repeated_queries_only=True))
    assert again.redundancy_penalty == [0.0, 0.5]


def test_the_weight_of_step_rewards_falls_in_a_line() -> None:
    assert [step_weight(done, 40) for done in (0, 10, 40, 50)] == [1.0, 0.75, 0.0, 0.0]
    assert step_weight(50, 0) == 1.0


def test_the_presets_differ_in_nothing_else() -> None:
    different = {f.name for f in fields(RewardConfig) if getattr(PAPER, f.name) != getattr(REFERENCE, f.name)}
    assert different == {*DEPARTURES, "reward_on_search"}


def test_presets_that_are_ablations() -> None:
    paper, gain_key, outcome = (score(GOOD, PRESETS[name]) for name in ("paper", "gain+key", "outcome"))
    assert sum(paper.redundancy_penalty) > 0
    assert close(gain_key.step_rewards, paper.information_gain)
    assert gain_key.score == paper.score
    assert close(outcome.step_rewards, [0.0, 0.0])
    assert outcome.score == outcome.answer_correct


def test_the_documented_switches_are_the_presets() -> None:
    text = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| `([^`]+)` \|", text, re.MULTILINE)
    names = [name for name, _, _ in rows]
    assert names == [field.name for field in fields(RewardConfig) if field.name not in ABLATIONS.values()]
    assert configure("paper", [f"{name}={value}" for name, value, _ in rows]) == PAPER
    assert configure("paper", [f"{name}={value}" for name, _, value in rows]) == REFERENCE


def test_a_hundred_rounds_of_the_same_documents() -> None:
    text = (search("q") + block("alpha beta", "zeta")) * 100 + "<answer>Lucca</answer>"
    found = score(text, PAPER)
    assert close(found.information_gain, [0.5] + [0.0] * 99)
    assert found.redundancy_penalty == [0.0] + [1.0] * 99


@given(
    texts,
    st.lists(st.text(max_size=10), max_size=2),
    st.lists(st.lists(st.text(max_size=10), max_size=2), max_size=3),
    st.lists(st.text(max_size=20), max_size=3),
    st.sampled_from([PAPER, REFERENCE]),
)
def test_any_text_at_all_has_a_score(
    text: str, target: list[str], keys: list[list[str]], golds: list[str], config: RewardConfig
) -> None:
    found = score_rollout(text, target, keys, golds, config)
    assert -1 <= found.score <= 1 + config.key_weight
    assert all(0 <= number <= 1 for number in (*found.information_gain, *found.redundancy_penalty))
    assert all(-1 <= number <= 1 for number in found.step_scores)
    assert len(found.information_gain) == len(found.redundancy_penalty)

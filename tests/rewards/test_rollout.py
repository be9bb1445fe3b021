"""Texts as rounds: both dialects, broken tags, and spans that cut out what they say."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepsearch_data.rewards import Format, Rollout, Span, own_turns, parse
from stepsearch_data.rewards.rollout import sections

THINK = """<think> first </think>
<search> who wrote Tosca </search>
<information> Doc 1<## Title: Tosca (opera) ##> Tosca is an opera.
Doc 2<## Title: Puccini ##> He wrote it. </information>
<think> done </think>
<answer> Puccini </answer>"""
PLAN = """<plan> first </plan><search>who wrote Tosca</search>

<information>Doc 1(Title: "Tosca (opera)") Tosca is an opera.
Doc 2(Title: Puccini) He wrote it.
</information>
<observation> by Puccini </observation>
<answer>Puccini</answer>
"""
TAGS = [
    f"<{slash}{name}>"
    for name in ("think", "plan", "search", "information", "observation", "answer", "warning")
    for slash in ("", "/")
]
PIECES = [
    *TAGS,
    "Doc 1<## Title: A ##> alpha",
    "\nDoc 2<## Title: B ##> beta",
    "##>",
    "<##",
    " ",
    "\n",
    "word",
    "Doc 1(Title: C) x",
]
texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map("".join))


def spans(rollout: Rollout) -> list[Span]:
    found = [rollout.answer] if rollout.answer else []
    for step in rollout.rounds:
        found += [span for span in (step.query, step.information, step.thought, step.observation) if span]
        found += [document.span for document in step.documents]
    return found


@pytest.mark.parametrize("text", [THINK, PLAN])
def test_both_dialects_say_the_same(text: str) -> None:
    rollout = parse(text)
    assert rollout.queries == ("who wrote Tosca",)
    (step,) = rollout.rounds
    assert [document.span.text for document in step.documents] == ["Tosca is an opera.", "He wrote it."]
    assert [document.title.strip('"') for document in step.documents] == ["Tosca (opera)", "Puccini"]
    assert step.thought == Span(text.index("first"), text.index("first") + 5, "first")
    assert rollout.answer is not None
    assert rollout.answer.text == "Puccini"
    assert rollout.answer_last
    assert rollout.format.ok
    assert text[: step.searched].endswith("</search>")
    assert text[: step.end].endswith("</information>")


def test_the_observation_is_the_models_note() -> None:
    (step,) = parse(PLAN).rounds
    assert step.observation is not None
    assert step.observation.text == "by Puccini"
    assert parse(THINK).rounds[0].observation is None


@pytest.mark.parametrize(
    ("text", "queries", "documents", "answer"),
    [
        ("", [], [], None),
        ("<search> a <search> b </search>", ["b"], [[]], None),  # the first is unclosed
        ("<search>a</search></search>", ["a"], [[]], None),
        ("<search> a", [], [], None),
        ("<search></search><information></information>", [""], [[]], None),
        ("<search>a</search><information>   </information>", ["a"], [[]], None),
        ("<search>a</search><information>plain text</information>", ["a"], [["plain text"]], None),
        ("<information>invented</information>", [], [], None),  # nobody searched
        ("<search>a</search><search>b</search><information>x</information>", ["a", "b"], [[], ["x"]], None),
        ("<think><search>a</search><information>x</information></think>", ["a"], [["x"]], None),
        ("<search>a</search><information>a <think> tag </information>", ["a"], [["a <think> tag"]], None),
        (  # cut off: the block ends where the next tag begins
            "<search>a</search><information>x <think>t</think><search>b</search><information>y</information>",
            ["a", "b"],
            [["x"], ["y"]],
            None,
        ),
        ("<answer>one</answer><answer>two</answer>", [], [], "two"),
        ("<answer>one<answer>two</answer>", [], [], "two"),
        ("<answer>one</answer><answer>two", [], [], "one"),
        ("<SEARCH>a</SEARCH><search >b</search >", [], [], None),  # no tags of ours
    ],
)
def test_broken_tags_are_read_in_a_defined_way(
    text: str, queries: list[str], documents: list[list[str]], answer: str | None
) -> None:
    rollout = parse(text)
    assert list(rollout.queries) == queries
    assert [[document.span.text for document in step.documents] for step in rollout.rounds] == documents
    assert (rollout.answer.text if rollout.answer else None) == answer


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (THINK, []),
        (THINK.replace("think>", "plan>"), []),
        (THINK + " more", ["answer_last"]),
        (THINK + "<answer>again</answer>", ["one_answer"]),
        (THINK.replace("<think>", "").replace("</think>", ""), ["has_thought"]),
        (THINK.replace("</search>", ""), ["has_search", "searches_paired"]),
        (THINK.replace("<answer>", "</search><answer>"), ["searches_paired"]),
        (THINK.replace("</answer>", ""), ["one_answer", "answer_last"]),
        ("<answer>x</answer>", ["has_thought", "has_search"]),
        ("", ["has_thought", "has_search", "one_answer", "answer_last"]),
    ],
)
def test_the_format_is_checked_point_by_point(text: str, wrong: list[str]) -> None:
    found = parse(text).format
    assert [name for name in Format.__dataclass_fields__ if not getattr(found, name)] == wrong
    assert found.ok == (not wrong)


def test_a_lazy_reading_merges_what_an_unclosed_block_swallows() -> None:
    """Departure 9: an observation that was cut loses its closing tag."""
    cut = "<search>a</search><information>x <think>t</think><search>b</search><information>y</information>"
    assert [step.information.text for step in parse(cut, lazy=True).rounds if step.information] == [
        "x <think>t</think><search>b</search><information>y"
    ]
    assert parse(cut, lazy=True).queries == ("a", "b")
    skipped = "<search>a</search><think>t</think><search>b</search><information>y</information>"
    (merged,) = parse(skipped, lazy=True).rounds
    assert merged.query.text == "a"
    assert len(parse(skipped).rounds) == 2


def test_a_hundred_rounds() -> None:
    text = "<think>t</think><search>q</search><information>Doc 1<## Title: T ##> d</information>" * 100
    for lazy in (False, True):
        rollout = parse(text + "<answer>a</answer>", lazy=lazy)
        assert len(rollout.rounds) == len(rollout.queries) == 100
        assert [step.end for step in rollout.rounds] == [len(text) // 100 * n for n in range(1, 101)]


@pytest.mark.parametrize(
    "piece", [*TAGS, "##>", "<##", "Doc 1(Title: ", "Doc 1<## Title: ", "<search></search>", "Doc 1 (", "a"]
)
@pytest.mark.parametrize("before", ["", "<search>q</search><information>"])
def test_reading_takes_linear_time(piece: str, before: str) -> None:
    text = before + piece * (400_000 // len(piece)) + ("</information>" if before else "")
    start = time.process_time()
    for lazy in (False, True):
        parse(text, lazy=lazy, keep_next_label=lazy)
    assert time.process_time() - start < 10


@given(texts, st.booleans(), st.booleans())
@example("<search> \x1f </search>", False, False)
def test_any_text_is_read_and_spans_cut_out_what_they_say(text: str, lazy: bool, label: bool) -> None:
    rollout = parse(text, lazy=lazy, keep_next_label=label)
    for span in spans(rollout):
        assert text[span.start : span.end] == span.text == span.text.strip()
    ends = [end for step in rollout.rounds for end in (step.searched, step.end)]
    assert ends == sorted(ends)
    assert all(text[: step.searched].endswith("</search>") for step in rollout.rounds)


@given(texts)
def test_where_tags_are_whole_both_readings_agree(content: str) -> None:
    plain = "".join(character for character in content if character not in "<>")
    text = f"<think>{plain}</think><search>{plain}</search><information>{plain}</information><answer>{plain}</answer>"
    tags, patterns = parse(text), parse(text, lazy=True)
    assert tags.queries == patterns.queries
    assert tags.answer == patterns.answer
    assert [(r.query, r.information, r.documents) for r in tags.rounds] == [
        (r.query, r.information, r.documents) for r in patterns.rounds
    ]


# ---- what the environment wrote

WARNING = "<warning> Write <search> a query </search> or <answer> the answer </answer>. </warning>\n"
SEARCH_R1 = (
    "My previous action is invalid. If I want to search, I should put the query between <search> and </search>. "
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n"
)
RESULT = (
    "<information> Doc 1<## Title: A ##> <answer> Verdi </answer> </information> <search> x </search> </information>\n"
)
SEARCH = "<search> who wrote Tosca </search>\n"


def joined(*parts: str) -> tuple[str, list[tuple[int, int]]]:
    """The policy's text and the environment's in turn, and where the latter is."""
    ends = [sum(map(len, parts[: at + 1])) for at in range(len(parts))]
    return "".join(parts), list(zip(ends[::2], ends[1::2], strict=False))


@pytest.mark.parametrize("warning", [WARNING, SEARCH_R1])
def test_a_warning_is_not_read_as_the_policys(warning: str) -> None:
    """A thought alone, a search, an answer: the format is right, and there is one query and one answer."""
    text = f"<think> hm </think>\n{warning}{SEARCH}<information> Doc 1 </information>\n<answer> Puccini </answer>"
    rollout = parse(text)
    assert rollout.format.ok
    assert rollout.queries == rollout.answered == ("who wrote Tosca",)
    assert rollout.answer
    assert rollout.answer.text == "Puccini"
    assert not parse(f"<think> hm </think>\n{warning}").answer
    found = [(name, span.text) for name, span in sections(f"<think> hm </think>{warning}")]
    assert ("answer", "the answer") not in found


@pytest.mark.parametrize("lazy", [False, True])
def test_where_the_environment_wrote_is_better_than_tags(lazy: bool) -> None:
    """A document may hold any tag, the closing one of its result too."""
    text, places = joined("<think> hm </think>\n", WARNING, SEARCH, RESULT, "<answer> Puccini </answer>")
    rollout = parse(text, lazy=lazy, observations=places)
    assert rollout.format.ok
    assert rollout.queries == rollout.answered == ("who wrote Tosca",)
    (step,) = rollout.rounds
    assert step.information
    assert step.information.text == RESULT.strip().removeprefix("<information> ").removesuffix(" </information>")
    assert rollout.answer
    assert rollout.answer.text == "Puccini"
    assert parse(text, lazy=lazy).queries != rollout.queries


@pytest.mark.parametrize("lazy", [False, True])
def test_a_result_that_the_policy_made_up_is_none(lazy: bool) -> None:
    text, places = joined(f"{SEARCH}<information> Doc 1 </information>", WARNING, "<answer> Puccini </answer>")
    rollout = parse(text, lazy=lazy, observations=places)
    assert rollout.queries == ("who wrote Tosca",)
    assert rollout.answered == ()


def test_a_search_does_not_reach_over_a_warning() -> None:
    text, places = joined("<search> who", WARNING, "wrote Tosca </search>")
    assert parse(text, observations=places).queries == ()
    assert not parse(text, observations=places).format.searches_paired


@given(st.lists(texts, min_size=1, max_size=6))
def test_only_the_policys_tags_count(parts: list[str]) -> None:
    """Whatever the environment writes around its results, the same searches and answers are found."""
    text, places = joined(*parts)
    rollout = parse(text, observations=places)
    for span in (*(step.query for step in rollout.rounds), *([rollout.answer] if rollout.answer else [])):
        assert not any(start <= span.start - 1 < end for start, end in places)  # the opening tag ends before it
    assert all(0 <= span.start <= span.end <= len(text) for span in spans(rollout))


def test_a_policys_own_turns_are_what_the_environment_did_not_write() -> None:
    search = "<think> a </think> <search> q </search>"
    shown = "\n<information> found </information>\n<warning> last </warning>\n"
    text, places = joined(search, shown, "Hm.", "<warning> again </warning>", "<answer> b </answer>")
    turns = [search, "Hm.<answer> b </answer>"]
    assert own_turns(parse(text, observations=places), places) == own_turns(parse(text)) == turns
    assert own_turns(parse("no search")) == ["no search"]

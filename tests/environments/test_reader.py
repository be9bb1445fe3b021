"""Documents are opened and words found in them: what a policy is told, and that only searches earn."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment, TaggedEnvironment
from stepsearch_data.environments.reader import NO_READ_LEFT, Reader
from stepsearch_data.rewards import in_tags, read, read_conversation
from stepsearch_data.rewards.conversation import NO_QUERY, OVER, TOO_MANY
from stepsearch_data.search.reading import pages
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.episode_score import score_task
from tests.environments.conftest import GOLD_QUERIES, QUESTION

LONG = Paragraph("Rossini", "Rossini was born in Pesaro. " + "He wrote operas in Naples. " * 20 + "He died in Passy.")
SHORT = Paragraph("Pesaro", "A town by the sea.")
Call = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def reading(config: EnvironmentConfig) -> EnvironmentConfig:
    return replace(config, tools=("open", "find"))


@pytest.fixture
def reader() -> Reader:
    """Pages of a hundred characters; a search has shown two documents."""
    made = Reader(load_template("tools"), 100)
    made.show([LONG, SHORT])
    return made


def test_a_search_shows_first_pages_and_ids(reader: Reader) -> None:
    shown, named = reader.show([SHORT, LONG, Paragraph("New", "text")])
    assert [document.text for document in shown] == [SHORT.text, pages(LONG.text, 100)[0], "text"]
    assert [document.title for document in shown] == ["Pesaro", "Rossini", "New"]
    assert [document.title for document in named] == ["Pesaro (id d2)", "Rossini (id d1, page 1 of 6)", "New (id d3)"]
    assert [document.text for document in named] == [document.text for document in shown]


def test_all_pages_of_a_document_are_its_text(reader: Reader) -> None:
    cut = []
    for page in range(1, 7):
        header, text = reader.open("d1", page).text.split("\n", 1)
        assert header == f"Rossini (id d1, page {page} of 6)"
        cut.append(text)
    assert "".join(cut) == LONG.text
    assert reader.open("d1") == reader.open("d1", 1)
    assert reader.open("d2").text == "Pesaro (id d2)\nA town by the sea."


def test_words_are_found_with_their_pages(reader: Reader) -> None:
    found = reader.find("d1", "died Passy")
    header, place = found.text.split("\n")
    assert header == "Rossini (id d1): 1 place"
    assert place.startswith("page 6: …")
    assert place.endswith("He died in Passy.")
    assert reader.find("d1", "Naples").text.startswith("Rossini (id d1): 3 places\npage 1: ")
    assert not found.refused


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("open", "d9"), 'There is no document "d9". Searches have shown d1 to d2.'),
        (("open", None), 'There is no document "". Searches have shown d1 to d2.'),
        (("open", 1), 'There is no document "1". Searches have shown d1 to d2.'),
        (("open", "x\n" * 50), f'There is no document "{"x " * 20}". Searches have shown d1 to d2.'),
        (("open", "d1", 7), 'd1 has no page "7". It has pages 1 to 6.'),
        (("open", "d1", 0), 'd1 has no page "0". It has pages 1 to 6.'),
        (("open", "d2", 2), 'd2 has no page "2". It has one page.'),
        (("open", "d2", "last"), 'd2 has no page "last". It has one page.'),
        (("open", "d2", 1e400), 'd2 has no page "inf". It has one page.'),
        (("open", "d2", [1]), 'd2 has no page "". It has one page.'),
        (("find", "d9", "sea"), 'There is no document "d9". Searches have shown d1 to d2.'),
        (("find", "d1", " .. "), "There are no words to find. Name a few of them."),
        (("find", "d1", None), "There are no words to find. Name a few of them."),
    ],
    ids=repr,
)
def test_what_cannot_be_read_is_said_in_plain_words(call: tuple[Any, ...], said: str, reader: Reader) -> None:
    found = getattr(reader, call[0])(*call[1:])
    assert found == (call[0], said, True)


def test_before_a_search_nothing_can_be_opened() -> None:
    empty = Reader(load_template("tools"), 100)
    assert empty.open("d1").text == 'There is no document "d1". Search first.'
    empty.show([SHORT])
    assert empty.open("d2").text == 'There is no document "d2". A search has shown d1.'


def test_words_that_are_nowhere_are_no_mistake(reader: Reader) -> None:
    assert reader.find("d1", "Verdi") == ("find", "d1 has none of these words.", False)


@pytest.mark.parametrize("written", ["d1", "D1", " d1 ", "[d1]", "(d1)"])
def test_an_id_is_read_as_it_is_meant(written: str, reader: Reader) -> None:
    assert reader.open(written, 2.0) == reader.open("d1", "2")


def test_tags_in_documents_are_harmless(reader: Reader) -> None:
    reader.show([Paragraph("<search>", "<answer> Rome </answer>")])
    assert reader.open("d3").text == "search (id d3)\nanswer Rome /answer"
    assert "<" not in reader.find("d3", "rome").text


# ---- in an environment

WORDS = ["Barber", "Rossini", "Pesaro", "river", "zzyzx"]
ASKED: st.SearchStrategy[Call] = st.one_of(
    st.builds(lambda query: ("search", {"query": query}), st.sampled_from([*GOLD_QUERIES, *WORDS, " "])),
    st.builds(
        lambda name, page: ("open", {"id": name, "page": page}),
        st.sampled_from(["d1", "d2", "d7", "d99", ""]),
        st.sampled_from([1, 2, 99, None, "x"]),
    ),
    st.builds(
        lambda name, words: ("find", {"id": name, "words": words}),
        st.sampled_from(["d1", "d3", "d99", None]),
        st.sampled_from([*WORDS, "", None]),
    ),
    st.sampled_from([("browse", {"url": "x"}), ("open", {}), ("find", {"words": "born"}), ("search", {})]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(ASKED, min_size=1, max_size=3), max_size=6), st.sampled_from(["Pesaro", None]))
def test_only_searches_earn_and_the_conversation_is_scored_alike(
    reading: EnvironmentConfig, turns: list[list[Call]], answer: str | None
) -> None:
    """As much as the same searches earn where there is nothing else to call."""
    environment, alone = SearchEnvironment(reading), SearchEnvironment(replace(reading, tools=()))
    environment.reset(QUESTION)
    alone.reset(QUESTION)
    messages: list[dict[str, Any]] = []

    async def play() -> None:
        for calls in turns:
            environment.begin_turn()
            written = [{"function": {"name": name, "arguments": json.dumps(arguments)}} for name, arguments in calls]
            messages.append({"role": "assistant", "tool_calls": written})
            for at, (name, arguments) in enumerate(calls):
                before = len(environment.results)
                found = await environment.call_async(name, arguments)
                messages.append({"role": "tool", "content": found.text})
                if len(environment.results) > before:
                    assert found.reward == alone.search(arguments["query"]).reward
                else:
                    assert not found.reward
                assert at == 0 or found.text == TOO_MANY.format(1)

    asyncio.run(play())
    messages.append({"role": "assistant", "content": f"<answer> {answer} </answer>" if answer else "I give up."})
    assert environment.answer(answer) == alone.answer(answer)
    assert environment.rewards == alone.rewards
    assert score_task(read_conversation(messages), environment.task) == environment.scores
    text, observations = in_tags(messages)
    assert score_task(read(text, observations=observations), environment.task) == environment.scores
    asked = [name for calls in turns for name, _ in calls[:1]]
    assert sum(environment.counts.values()) == min(asked.count("open") + asked.count("find"), 10)


def test_a_search_earns_what_it_has_shown(reading: EnvironmentConfig) -> None:
    """The first page of a gold paragraph is less than the whole of it, and to open the rest earns nothing."""
    whole, cut = SearchEnvironment(reading), SearchEnvironment(replace(reading, page_length=100))
    earned = []
    for environment in (whole, cut):
        environment.reset(QUESTION)
        earned.append(environment.search(GOLD_QUERIES[0]).gain)
    assert earned[0] > earned[1] > 0
    assert "(id d1, page 1 of " in cut.results[0].text
    assert cut.results[0].documents[0].title == "The Barber of Seville"
    opened = cut.open("d1", 2)
    assert (opened.reward, opened.gain, opened.documents) == (0, 0, ())
    assert cut.rewards == [cut.results[0].reward]


def test_without_tools_there_is_nothing_to_open(config: EnvironmentConfig) -> None:
    environment = SearchEnvironment(config)
    environment.reset(QUESTION)
    assert "(id " not in environment.search(GOLD_QUERIES[0]).text
    assert environment.open("d1").text == 'There is no tool "open". Call search.'
    assert (environment.counts, environment.reads) == ({}, [])
    only = SearchEnvironment(replace(config, tools=("find",)))
    only.reset(QUESTION)
    assert only.open("d1").text == 'There is no tool "open". Call search or find.'


def test_calls_of_a_turn_are_counted_where_turns_are_told(reading: EnvironmentConfig) -> None:
    environment = SearchEnvironment(replace(reading, calls_per_turn=2))
    environment.reset(QUESTION)
    for _ in range(3):  # each a turn of its own
        environment.search("Rossini")
    environment.begin_turn()
    assert environment.search("Rossini").documents
    assert environment.open("d1").text.startswith("Gioachino Rossini (id d1)\n")
    assert environment.find("d1", "born").text == TOO_MANY.format(2)
    environment.begin_turn()
    assert environment.find("d1", "born").text.startswith("Gioachino Rossini (id d1): ")
    assert (environment.invalid, environment.counts) == (1, {"opens": 1, "finds": 1})


def test_without_tools_a_turn_may_have_any_number_of_calls(config: EnvironmentConfig) -> None:
    environment = SearchEnvironment(config)
    environment.reset(QUESTION)
    environment.begin_turn()
    assert all(environment.search("Rossini").documents for _ in range(5))


def test_a_rollout_reads_only_so_often(reading: EnvironmentConfig) -> None:
    environment = SearchEnvironment(replace(reading, max_reads=1))
    environment.reset(QUESTION)
    environment.open("d1")
    assert environment.open("d1").text == NO_READ_LEFT
    assert environment.search("Rossini").documents
    environment.answer("Pesaro")
    assert environment.open("d1").text == OVER
    environment.reset(QUESTION)
    assert environment.open("d1").text == 'There is no document "d1". Search first.'


def test_a_caller_that_searches_itself_takes_queries_and_shows_documents(reading: EnvironmentConfig) -> None:
    environment = SearchEnvironment(replace(reading, max_turns=1))
    environment.reset(QUESTION)
    query = environment.take("search", {"query": "sea"})
    assert query == "sea"
    assert environment.searches_left == 0
    assert environment.show(query, [SHORT]).text == "[1] Pesaro (id d1)\nA town by the sea."
    assert environment.take("open", {"id": "d1"}) == environment.open("d1")
    refused = environment.take("search", {})
    assert not isinstance(refused, str)
    assert refused.text != NO_QUERY  # that no search is left comes first


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tools": ["open", "browse"]}, "tools"),
        ({"page_length": 99}, "page_length"),
        ({"page_length": 10**6}, "page_length"),
        ({"max_reads": -1}, "max_reads"),
        ({"calls_per_turn": 0}, "calls_per_turn"),
    ],
    ids=repr,
)
def test_settings_out_of_bounds_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        EnvironmentConfig.of(**changes)


def test_tools_are_for_policies_that_call(tagged_config: EnvironmentConfig, tmp_path: Any) -> None:
    tools: Any = ("open", "system")
    with pytest.raises(ConfigError, match="no tags for open and find"):
        TaggedEnvironment(replace(tagged_config, tools=("open", "find")))
    with pytest.raises(ConfigError, match="has no tool"):
        SearchEnvironment(replace(tagged_config, tools=("open",)))
    with pytest.raises(ConfigError, match="there is no tool system"):
        SearchEnvironment(EnvironmentConfig(tools=tools))
    parts = load_template("tools").parts
    for name, left_out, said in (("a", "open", "has no part open"), ("b", "", r"shows no \$\{title\}")):
        texts = {part: text for part, text in parts.items() if part != left_out}
        if not left_out:
            texts["document"] = "${text}"
        (tmp_path / name).write_text("".join(f"=== {part} ===\n{text}\n" for part, text in texts.items()))
        with pytest.raises(ConfigError, match=said):
            SearchEnvironment(EnvironmentConfig(template=str(tmp_path / name), tools=("open",)))


def test_what_may_be_called_is_defined_by_the_template(reading: EnvironmentConfig) -> None:
    assert [function["name"] for function in reading.functions] == ["search", "open", "find"]
    assert [function["name"] for function in replace(reading, tools=("find",)).functions] == ["search", "find"]
    assert replace(reading, tools=()).functions == [load_template("tools").tool]

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.llm.chat import Message
from stepsearch_data.stages.model import PROMPTS, Prompt, load_prompt


@pytest.mark.parametrize("name", PROMPTS)
def test_ours_have_two_parts_and_state_the_shape(name: str) -> None:
    prompt = load_prompt(name)
    system, user = prompt.render(**dict.fromkeys(prompt.placeholders, "~"))
    assert (system.role, user.role) == ("system", "user")
    assert '{"' in system.content
    assert "${" not in system.content + user.content
    assert "===" not in system.content + user.content


@given(st.text())
def test_values_stand_as_they_are(value: str) -> None:
    prompt = Prompt("queries", 'about ${a}\n=== user ===\n{"x": ${a}, $5} ${b}!')
    system, user = prompt.render(a=value, b="b")
    assert system.content == f"about {value}"
    assert user.content == f'{{"x": {value}, $5}} b!'


def test_values_are_not_templates() -> None:
    tricky = "${b} $b {b} {} $$ %s\n=== user ===\n\\1"
    prompt = Prompt("queries", "system\n=== user ===\n${a} ${b}")
    assert prompt.render(a=tricky, b="x")[1].content == f"{tricky} x"


def test_without_the_marker_all_is_the_user_part() -> None:
    assert Prompt("judge", "Judge ${a}").render(a="this") == (Message("user", "Judge this"),)
    assert Prompt("judge", "=== user ===\nJudge ${a}\n").render(a="this") == (Message("user", "Judge this"),)


def test_a_users_file_takes_the_place_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeffBe terse.\r\n=== user ===\r\n${question} é\r\n".encode())
    prompt = load_prompt("decompose", file)
    assert prompt.render(question="Why?", answer="unused") == (
        Message("system", "Be terse."),
        Message("user", "Why? é"),
    )


def test_unknown_placeholders_are_named_with_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("${question} ${anwser} ${zzz}")
    with pytest.raises(ConfigError, match=r"unknown placeholders: \$\{anwser\}, \$\{zzz\}$") as error:
        load_prompt("decompose", file)
    assert error.value.hint == "known: ${answer}, ${decomposition}, ${paragraphs}, ${question}"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read .*No such file"), (b"{question}", "names no placeholder"), (b"\xff\xfe${question}", "UTF-8")],
)
def test_a_file_that_is_no_prompt_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "mine.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load_prompt("decompose", file)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="no prompt 'dcompose'") as error:
        load_prompt("dcompose")
    assert "decompose" in error.value.hint

"""Nothing of a key is told, however somebody spells it, and of an address where it leads."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.remote.secrets import (
    check_address,
    check_no_key,
    find_key,
    is_open,
    known_secrets,
    redact,
    show_url,
)
from stepsearch_data.stages import STAGES

KEY = "sk-Canary/42+Zq7_tail=Wxyz"
SPELLINGS = {
    "as it is": KEY,
    "upper case": KEY.upper(),
    "of a URL": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of a header": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "base64 of a URL": "token=" + base64.urlsafe_b64encode(f"me:{KEY}".encode()).decode(),
    "hexadecimal": KEY.encode().hex(),
    "JSON": json.dumps(KEY).replace("/", "\\/"),
    "JSON's escapes": "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    "HTML": "".join(f"&#{ord(letter)};" for letter in KEY),
    "HTML's names": html.escape(KEY).replace("=", "&equals;"),
    "cut": KEY[:12],
    "its end": KEY[-9:],
    "masked": "sk-C***Wxyz",
    "masked with dots": "sk-…Wxyz",
    "masked with three dots": "sk-Ca...yz",
    "masked at its start": "****************Wxyz",
    "in a URL": f"http://h/v1?key={KEY}",
    "in a URL's user": f"http://me:{quote(KEY, safe='')}@h/v1",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_key_is_told(spelling: str) -> None:
    told = redact(f"Incorrect API key provided: {SPELLINGS[spelling]} (you can find it)", [KEY])
    assert told.startswith("Incorrect API key provided: ")
    assert told.endswith("you can find it)")
    pieces = {KEY[at : at + 4].lower() for at in range(3, len(KEY) - 3)}
    assert not [piece for piece in pieces if piece in told.lower()]
    assert not (set(SPELLINGS[spelling].split("key=")[-1:]) & set(told.split()))


@pytest.mark.parametrize("key", [KEY, "local-server-key", "EMPTY", ""])
def test_other_words_stay(key: str) -> None:
    text = "'max_tokens' and response_format are refused; wait... C:/x /data/hf_datasets/rows.jsonl http://h:80/v1"
    assert redact(text, [key]) == text


@pytest.mark.parametrize("text", ["a", "word ", "x/", ".", "A1", "sk-", "a:", "http://", "a.+", "%2", "&#4;", "\\u00"])
def test_a_long_text_takes_no_longer_than_its_length(text: str) -> None:
    begun = time.process_time()
    redact(text * (20_000 // len(text)), [KEY])
    assert time.process_time() - begun < 1


def test_what_looks_like_a_key_is_hidden_without_knowing_it() -> None:
    assert redact("key sk-proj-0123456789 and hf_ABCDEFGH1234") == "key *** and ***"


def test_secrets_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERPER_API_KEY", " canary-1234567\n")
    monkeypatch.setenv("MY_TOKEN", "abc")
    assert find_key("SERPER_API_KEY") == "canary-1234567"
    assert "canary-1234567" in known_secrets()
    assert "abc" not in known_secrets()
    assert redact("no canary-1234567 here") == "no *** here"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("https://me:hush@h:1/v1?key=x#y", "https://h:1/v1"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("http://[::1", "***"),
        ("http://me:hu/sh@h/v1", "http://h/v1"),
        ("HTTP://h/v1", "http://h/v1"),
        ("me:hush@h", "h"),
        ("localhost:8000?key=x", "localhost:8000"),
        ("", ""),
    ],
)
def test_a_url_is_shown_as_where_it_leads(url: str, shown: str) -> None:
    assert show_url(url) == shown
    assert is_open(url) == (url.lower() == shown or "://" not in url)


def test_a_placeholder_for_a_key_is_a_word_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    assert is_open("llama3:latest")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert not is_open(f"model {KEY}")


def test_long_parts_of_a_path_are_told_by_digest() -> None:
    one, other = (show_url(f"https://h/{'secret' * 5}{end}/v1") for end in "ab")
    assert one.startswith("https://h/secr…")
    assert one.endswith("/v1")
    assert one != other


def test_a_path_that_is_a_url_is_cleaned_too() -> None:
    assert redact("cannot read https:/me:hush@h/rows?token=x: no such file") == "cannot read h/rows no such file"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ", "bell\a"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY has characters") as refused:
        find_key("OPENAI_API_KEY")
    assert key not in str(refused.value)


@pytest.mark.parametrize("url", ["http://h/v1?key=hush", "http://me:hush@h/v1", "http://h/v1#hush"])
def test_an_address_holds_nothing_else(url: str) -> None:
    with pytest.raises(ConfigError, match=r"llm\.base_url holds a user, a password or parameters") as refused:
        load_config(STAGES, settings=[f"llm.base_url={url}"], environment={})
    assert "hush" not in str(refused.value) + refused.value.hint
    check_address("llm.base_url", "http://h/v1")


def test_a_key_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(ConfigError, match="decompose holds a key"):
        load_config(STAGES, settings=[f"decompose.llm={KEY}"], environment={})
    check_no_key("decompose", {"llm": "gpt-4o-mini"})

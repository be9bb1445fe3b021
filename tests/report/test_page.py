from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.report import page
from stepsearch_data.report.page import Mode, data_script, pack, packed_script, shell
from tests.report.conftest import HOSTILE
from tests.report.reading import elements


@pytest.mark.long
@given(st.recursive(st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_text_can_end_the_element_that_holds_it(value: object) -> None:
    script = data_script("summary", value).decode()
    (element,) = elements(script)
    assert element.attributes == {"type": "application/json", "id": "summary"}
    assert json.loads(element.text) == value
    assert not re.search("[<>&\u2028\u2029]", element.text)


def test_packed_values_are_letters_and_digits_and_always_the_same() -> None:
    packed = pack({"text": HOSTILE})
    assert re.fullmatch(rb"[A-Za-z0-9+/=]+", packed)
    assert packed == pack({"text": HOSTILE})
    assert json.loads(gzip.decompress(base64.b64decode(packed))) == {"text": HOSTILE}
    (element,) = elements(packed_script("chunk-0", packed).decode())
    assert (element.attributes["id"], element.text) == ("chunk-0", packed.decode())


@pytest.mark.parametrize("mode", list(Mode))
def test_the_policy_admits_our_scripts_by_their_bytes_and_no_others(mode: Mode) -> None:
    made = shell(mode, "A title")
    text = (made.before + made.after).decode()
    scripts = [element for element in elements(text) if element.name == "script"]
    hashes = {base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode() for element in scripts}
    rules = dict(rule.split(" ", 1) for rule in made.policy.split("; "))
    assert set(re.findall(r"'sha256-([^']+)'", rules["script-src"])) == hashes
    assert ("'strict-dynamic'" in rules["script-src"]) == (mode is Mode.chunks)
    assert rules.get("connect-src") == ("'self'" if mode is Mode.remote else None)
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe-inline" not in rules["script-src"]
    assert "unsafe-eval" not in made.policy
    assert f'content="{made.policy}"' in text


def test_nothing_is_loaded_from_elsewhere() -> None:
    made = shell(Mode.embedded, "A title")
    for element in elements((made.before + made.after).decode()):
        assert "src" not in element.attributes
        assert str(element.attributes.get("href", "#")).startswith(("#", "data:"))


def test_a_title_is_text() -> None:
    made = shell(Mode.embedded, f"{HOSTILE}<!--APP-->")
    titles = [element.text for element in elements((made.before + made.after).decode()) if element.name == "title"]
    assert titles == [f"{HOSTILE}<!--APP-->"]


def test_every_part_is_in_its_place() -> None:
    made = shell(Mode.embedded, "A title")
    text = (made.before + made.after).decode()
    assert not re.search("<!--[A-Z]+-->", text)
    assert text.index("window.vegaEmbed") > len(made.before)
    folder = Path(page.__file__).parent / "page"
    *_, app = (element.text for element in elements(text) if element.name == "script")
    assert not re.search("^(import|export) ", app, re.MULTILINE)
    for path in folder.glob("*.js"):
        assert re.sub(r"^(import [^;]+;\n|export )", "", path.read_text(), flags=re.MULTILINE) in app
    assert (folder / "style.css").read_text() in text


def test_modules_can_be_one_script_as_no_name_is_declared_twice_or_imported_under_another() -> None:
    modules = [path.read_text() for path in (Path(page.__file__).parent / "page").glob("*.js")]
    declared = r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)"
    names = [name for text in modules for name in re.findall(declared, text, re.MULTILINE)]
    assert len(names) == len(set(names)) > 80
    imports = [found for text in modules for found in re.findall(r"^import ([^;]+) from", text, re.MULTILINE)]
    assert all(re.fullmatch(r"\{[\w\s,]+\}", found) and " as " not in found for found in imports)


@pytest.mark.long
def test_the_charts_library_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = shell(Mode.embedded, "A title")
    (kept,) = (tmp_path / "stepsearch-data").iterdir()
    kept.write_text("window.vegaEmbed = 'kept';")
    assert b"window.vegaEmbed = 'kept';" in shell(Mode.embedded, "A title").after
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("a cache that cannot be written")
    assert shell(Mode.embedded, "A title") == made


def test_without_its_library_a_page_has_no_charts_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell(Mode.embedded, "A title").draws

    def missing(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", missing)
    made = shell(Mode.embedded, "A title")
    assert not made.draws
    vega, _ = (element.text for element in elements(made.after.decode()) if element.name == "script")
    assert vega == ""

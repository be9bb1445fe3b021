"""Marks in a real browser: given by button and by key, kept by the store, found in the list, shown by a report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest

from stepsearch_data.pipeline.marks import Change, write_marks
from stepsearch_data.pipeline.store import Store
from tests.browser import Browser, chromium
from tests.conftest import run_cli
from tests.report.pages import EVIL, questions, total, viewing, write_report

pytestmark = pytest.mark.long

ASKED = "2hop__811040_270741"
CHOOSE = """const field = document.querySelector("select[name=marks]");
    field.value = arguments[0]; field.dispatchEvent(new Event("input", {bubbles: true}))"""
browser = pytest.fixture(scope="module")(chromium)


@pytest.fixture
def store(sample_store: Path, tmp_path: Path) -> Store:
    """A copy of the sample's store, to be marked."""
    return Store.open(Path(shutil.copytree(sample_store, tmp_path / "store")))


def words(store: Store) -> dict[str, tuple[str, str]]:
    return {id_: (mark.mark, mark.note) for id_, mark in store.marks().items()}


def pressed(browser: Browser) -> list[str]:
    return browser.texts(".marking [aria-pressed=true]")


def test_a_mark_survives_a_reload_a_rebuild_and_another_server(browser: Browser, store: Store) -> None:
    browser.look()
    with viewing(store.root) as url:
        browser.open(f"{url}#/t/{quote(ASKED)}", ".marking")
        assert pressed(browser) == []
        browser.all(".marking button")[0].click()
        browser.wait(lambda: pressed(browser) == ["✓ good"])
        assert browser.text("#said") == "Marked good"
        browser.one("#note").send_keys(f"Why? {EVIL}")
        assert browser.text(".marking > p") == "The note is not saved yet."
        browser.driver.refresh()  # which saves it
        browser.wait(lambda: browser.all(".marking") and pressed(browser))
        browser.wait(lambda: words(store) == {ASKED: ("good", f"Why? {EVIL}".strip())})
        browser.driver.refresh()
        browser.wait(lambda: browser.all("#note") and browser.one("#note").get_attribute("value"))
        assert run_cli("build", "--quiet", "--force", "--store", store.root).returncode == 0
        browser.driver.refresh()
        browser.wait(lambda: browser.all(".marking") and pressed(browser) == ["✓ good"])
        assert browser.run("return window.pwned") is None
    with viewing(store.root) as url:
        browser.open(f"{url}#/t/{quote(ASKED)}", ".marking")
        assert pressed(browser) == ["✓ good"]
        assert str(browser.one("#note").get_attribute("value")).startswith("Why? </script>")
        assert browser.complaints() == []


def test_all_marks_are_given_and_taken_back_with_keys(browser: Browser, store: Store) -> None:
    browser.look()
    with viewing(store.root) as url:
        browser.open(f"{url}#/t/{quote(ASKED)}", ".marking")
        browser.press("?")
        assert "mark good or bad" in browser.text(".keys")
        browser.one("#help button").click()
        browser.wait(lambda: not browser.all("dialog[open]"))
        browser.press("g", "b")
        browser.wait(lambda: pressed(browser) == ["✕ bad"])
        browser.press("m")
        assert browser.run("return document.activeElement.id") == "note"
        browser.press("g", "o", "ESCAPE")
        browser.wait(lambda: words(store) == {ASKED: ("bad", "go")})
        assert browser.run("return document.activeElement.tagName") == "H1"
        browser.press("b")
        browser.wait(lambda: words(store) == {ASKED: ("", "go")})
        browser.press("m", *["BACKSPACE"] * 2, "ESCAPE")
        browser.wait(lambda: words(store) == {})
        browser.one("#help-open").click()
        browser.one("#keys-on").click()
        browser.one("#help button").click()
        browser.wait(lambda: not browser.all("dialog[open]"))
        browser.press("g")  # single letters are no keys now
        browser.one("#help-open").click()
        browser.one("#keys-on").click()
        assert words(store) == {}


def test_two_tabs_do_not_undo_each_other(browser: Browser, store: Store) -> None:
    browser.look()
    with viewing(store.root) as url:
        browser.open(f"{url}#/t/{quote(ASKED)}", ".marking")
        write_marks(store, {ASKED: Change(note="from elsewhere")})
        browser.press("g")
        browser.wait(lambda: words(store) == {ASKED: ("good", "from elsewhere")})
        browser.wait(lambda: browser.one("#note").get_attribute("value") == "from elsewhere")
        browser.all(".around a")[0].click()
        browser.wait(lambda: browser.all(".row"))
        assert words(store) == {ASKED: ("good", "from elsewhere")}


def test_the_list_is_filtered_by_marks(browser: Browser, store: Store) -> None:
    browser.look()
    with viewing(store.root) as url:
        browser.open(f"{url}#/t", ".row")
        assert not browser.all("select[name=marks]")
        first, second, third = questions(browser)[:3]
        browser.all(".row a")[0].click()
        browser.wait(lambda: browser.all(".marking"))
        browser.press("g", "n")
        browser.wait(lambda: browser.texts("h1") == [second])
        browser.press("b", "n")
        browser.wait(lambda: browser.texts("h1") == [third])
        browser.press("m", "?", "ESCAPE", "ESCAPE")
        browser.wait(lambda: browser.all("select[name=marks]"))
        assert browser.texts(".row:nth-child(-n+3) :is(.good, .bad, .note)") == ["✓ good", "✕ bad", "✎ note"]
        for mark, expected in (("good", first), ("bad", second), ("note", third)):
            browser.run(CHOOSE, mark)  # keys would be taken as one word
            browser.wait(lambda expected=expected: questions(browser) == [expected])  # type: ignore[misc]
        browser.open(f"{url}#/", "section > .scroll")
        assert browser.texts('[aria-label="Marks"] tbody tr') == ["good\t1", "bad\t1", "note\t1"]
        browser.all('[aria-label="Marks"] a')[1].click()
        browser.wait(lambda: questions(browser) == [second])
        browser.open(f"{url}#/t?marks=none", ".row")
        assert total(browser) == "67 trajectories"
        fourth, fifth = questions(browser)[:2]
        browser.all(".row a")[0].click()
        browser.wait(lambda: browser.texts("h1") == [fourth])
        browser.press("g")
        browser.wait(lambda: pressed(browser) == ["✓ good"])
        browser.press("n")  # the list has lost a row, and the next one is still the next one
        browser.wait(lambda: browser.texts("h1") == [fifth])
        assert browser.barriers() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_are_for_everybody_and_for_every_screen(
    browser: Browser, store: Store, theme: Literal["light", "dark"]
) -> None:
    write_marks(store, {ASKED: Change(mark="bad", note=f"{EVIL}\n{'w' * 500}")})
    with viewing(store.root) as url:
        for width in (1280, 360):
            browser.look(width=width, theme=theme)
            for place in (f"t/{quote(ASKED)}", "t"):
                browser.open(f"{url}#/{place}", ".bad, .marking")
                assert browser.barriers() == []
                assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.run("return window.pwned") is None


def test_what_cannot_be_kept_is_said_and_the_page_goes_on(browser: Browser, store: Store) -> None:
    browser.look()
    with viewing(store.root) as url:
        (store.root / "marks.jsonl").mkdir()
        browser.open(f"{url}#/t/{quote(ASKED)}", ".problem")
        assert "marks.jsonl is not a regular file" in browser.text(".problem")
        (store.root / "marks.jsonl").rmdir()
        browser.open(f"{url}#/t/{quote(ASKED)}", ".marking")
        (store.root / "marks.jsonl").symlink_to("elsewhere")
        browser.press("g")
        browser.wait(lambda: "cannot write" in browser.text(".marking > p"))
        assert pressed(browser) == []
        (store.root / "marks.jsonl").unlink()
        browser.press("g")
        browser.wait(lambda: pressed(browser) == ["✓ good"])
        assert browser.text(".marking > p") == ""


@pytest.mark.parametrize("flags", [(), ("--folder",)])
def test_a_report_shows_the_marks_that_there_were(
    browser: Browser, store: Store, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    write_marks(store, {ASKED: Change(mark="bad", note=f"{EVIL}\nsecond line")})
    url = write_report(store.root, tmp_path, *flags)
    browser.look()
    browser.open(f"{url}#/t?marks=bad", ".row")
    assert (total(browser), browser.texts(".row .bad")) == ("1 trajectory", ["✕ bad"])
    browser.all(".row a")[0].click()
    browser.wait(lambda: browser.all(".marking"))
    assert browser.text(".marking strong") == "✕ bad"
    assert browser.text(".marking .note").startswith("</script><script>window.pwned")
    assert not browser.all(".marking button, .marking textarea")
    assert browser.run("return window.pwned") is None
    assert browser.barriers() == []
    browser.press("?")
    assert not any(row.is_displayed() for row in browser.all(".of-marks"))


def test_a_report_of_a_store_without_marks_tells_of_none(browser: Browser, sample_store: Path, tmp_path: Path) -> None:
    browser.look()
    browser.open(f"{write_report(sample_store, tmp_path)}#/t/{quote(ASKED)}", ".line")
    assert not browser.all(".marking")
    browser.all(".around a")[0].click()
    browser.wait(lambda: browser.all(".row"))
    assert not browser.all("select[name=marks]")

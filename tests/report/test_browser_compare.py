"""Two stores compared, in a real browser: every lost trajectory is named, and both versions stand side by side."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest

import stepsearch_data as ssd
from tests.browser import Browser, chromium
from tests.releases import build

pytestmark = pytest.mark.long

browser = pytest.fixture(scope="module")(chromium)

FIT = "SELECT question_id FROM trajectories JOIN quality USING (question_id) WHERE complete AND passed"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssd.Store, ssd.Store]:
    """Two builds of the sample that differ in how queries are written, searched and kept."""
    folder = tmp_path_factory.mktemp("compared")
    a = build(folder / "a", "engines.bm25.k1=0.3")
    b = build(folder / "b", "engines.bm25.k1=3.0", "queries.per_sub_question=1", "filter.k=1")
    return ssd.open(a.root), ssd.open(b.root)


@pytest.fixture(scope="module", params=["file", "folder"])
def page(
    request: pytest.FixtureRequest,
    browser: Browser,
    stores: tuple[ssd.Store, ssd.Store],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    output = tmp_path_factory.mktemp("page") / "changes"
    return stores[1].report(output, compare=stores[0], folder=request.param == "folder").page.as_uri()


def column(store: ssd.Store, sql: str) -> list[str]:
    return [str(value) for value in store.sql(sql)[0].to_pylist()]


def test_every_lost_trajectory_is_named_and_can_be_read(
    browser: Browser, page: str, stores: tuple[ssd.Store, ssd.Store]
) -> None:
    lost = sorted(set(column(stores[0], FIT)) - set(column(stores[1], FIT)))
    assert lost
    browser.look()
    browser.open(page, ".tiles")  # without an address it opens here
    assert browser.hash() == "/c"
    tile = browser.one(".tiles a[href$='kind=lost']")
    assert tile.text == str(len(lost))
    tile.click()
    browser.wait(lambda: browser.all(".row"))
    assert browser.texts(".row code") == lost
    reasons = dict(zip(lost, [text.removeprefix("− Lost: ") for text in browser.texts(".row .why")], strict=True))
    sql = "SELECT array_to_string(reasons, '; ') FROM quality WHERE question_id = '{}'"
    assert reasons == {name: column(stores[1], sql.format(name))[0] for name in lost}
    browser.all(".row a")[0].click()
    browser.wait(lambda: browser.all(".sides"))
    questions = "SELECT question FROM questions WHERE question_id = '{}'"
    assert [browser.text("h1")] == column(stores[0], questions.format(lost[0]))
    ours, theirs = (store.trajectory(lost[0]) for store in stores)
    assert browser.texts(".sides > div:first-child p.query") == [
        marked(step.query, theirs, n) for n, step in enumerate(ours.rounds)
    ]
    assert "✓ passed" in browser.texts(".side")[0]
    assert "✕ failed" in browser.texts(".side")[1]
    browser.press("n")
    browser.wait(lambda: browser.hash() == f"/d/{quote(lost[1])}?kind=lost")
    browser.press("ESCAPE")
    browser.wait(lambda: browser.texts(".row code") == lost)


def marked(query: str, other: ssd.Trajectory, at: int) -> str:
    """A query as the page shows it: one that the other store does not have in that round has a sign."""
    return query if other.rounds[at].query == query else f"≠ {query}"


def test_counts_are_those_of_sql(browser: Browser, page: str, stores: tuple[ssd.Store, ssd.Store]) -> None:
    browser.look()
    browser.open(f"{page}#/c", ".tiles")
    cells = browser.run(
        "return [...document.querySelectorAll('section:nth-of-type(3) tbody tr')].map("
        "(row) => [...row.children].map((cell) => cell.innerText.replaceAll(',', '')))"
    )
    rows = {name: (a, b) for name, a, b, _ in cells}
    for table in ("questions", "queries", "hits", "rounds"):
        assert rows[table] == tuple(column(store, f"SELECT count(*) FROM {table}")[0] for store in stores)
    passed = "SELECT count(*) FROM quality WHERE passed"
    assert rows["trajectories passed"] == tuple(column(store, passed)[0] for store in stores)
    gates = browser.run(
        "return [...document.querySelectorAll('section:nth-of-type(4) tbody tr')].map("
        "(row) => [...row.children].map((cell) => cell.innerText))"
    )
    flagged = "SELECT count(*) FROM quality WHERE list_contains(flags, '{}')"
    for gate, a, b, _ in gates:
        assert (a, b) == tuple(column(store, flagged.format(gate))[0] for store in stores)
    told = browser.texts("section:nth-of-type(1) td")
    assert told == ["engines.bm25.k1", "0.3", "3.0", "filter.k", "3", "1", "queries.per_sub_question", "4", "1"]
    count = browser.all("section:nth-of-type(4) tbody a")[-1]
    expected = f"{count.text} trajectories"
    count.click()
    browser.wait(lambda: browser.texts("#results .total") == [expected])


def test_both_versions_of_a_changed_trajectory_stand_in_rows_on_screen_and_on_paper(
    browser: Browser, page: str, stores: tuple[ssd.Store, ssd.Store]
) -> None:
    found = stores[0].compare(stores[1])["changed"]
    changed = next(one["question_id"] for one in found if "queries" in one["differs"])
    browser.look()
    browser.open(f"{page}#/d/{quote(changed)}", ".sides")
    ours, theirs = (store.trajectory(changed) for store in stores)
    for side, mine, other in (("first", ours, theirs), ("last", theirs, ours)):
        told = browser.texts(f".sides > div:{side}-child p.query")
        assert told == [marked(step.query, other, at) for at, step in enumerate(mine.rounds)]
        assert any(text.startswith("≠ ") for text in told)
    tops = "return [...arguments[0].querySelectorAll('.line > li')].map((round) => round.getBoundingClientRect().top)"
    for media in ("screen", "print"):
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
        a, b = (browser.run(tops, side) for side in browser.all(".sides > div"))
        assert a == b
    browser.look()
    browser.one("p a[href*='#/t/']").click()
    browser.wait(lambda: browser.all("dl.facts"))
    assert browser.hash() == f"/t/{quote(changed)}"


def test_changes_are_found_by_kind_reason_and_words_and_taken_away(browser: Browser, page: str, tmp_path: Path) -> None:
    def counted(count: str) -> bool:
        return browser.texts(".total")[:1] == [f"{count} trajector{'y' if count == '1' else 'ies'}"]

    browser.look()
    browser.downloads(tmp_path)
    browser.open(f"{page}#/c", ".reasons")
    counts = browser.texts(".reasons a")
    for at, count in enumerate(counts):
        browser.all(".reasons a")[at].click()
        browser.wait(partial(counted, count))
        browser.driver.back()
        browser.wait(lambda: browser.all(".reasons"))
    browser.open(f"{page}#/d?kind=lost", ".row")
    names = browser.texts(".row code")
    name = names[0]
    browser.all(".take button")[2].click()
    file = tmp_path / "trajectories.jsonl"
    browser.wait(partial(browser.has, file))
    taken = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["id"], row["kind"], bool(row["reasons"])) for row in taken] == [(each, "lost", True) for each in names]
    browser.one("#search").send_keys(name.upper())
    browser.wait(lambda: browser.texts(".row code") == [name])
    assert browser.hash() == f"/d?text={name.upper()}&kind=lost"
    browser.one("#search").send_keys("zzz")
    browser.wait(lambda: browser.texts(".total") == ["Nothing found"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_views_are_accessible_and_fit_a_phone(browser: Browser, page: str, theme: Literal["light", "dark"]) -> None:
    for address, ready in (("#/c", ".tiles"), ("#/d?kind=lost", ".row"), ("#/d/2hop__811040_270741", ".sides")):
        browser.look(theme=theme)
        browser.open(page + address, ready)
        assert browser.barriers() == []
        assert browser.complaints() == []
        browser.look(width=360, theme=theme)
        browser.open(page + address, ready)
        assert browser.run("return document.documentElement.scrollWidth") == 360
        assert browser.barriers() == []


def test_what_does_not_differ_or_is_not_compared_is_said(
    browser: Browser, page: str, stores: tuple[ssd.Store, ssd.Store], tmp_path: Path
) -> None:
    browser.look()
    browser.open(f"{page}#/d/none")
    assert browser.text("main [role=alert]") == "The stores do not differ in a trajectory with the id none."
    alone = stores[0].report(tmp_path / "alone").page.as_uri()
    browser.open(f"{alone}#/c")
    assert "stepsearch-data report --compare" in browser.text("main [role=alert]")
    browser.open(alone, ".tiles")
    assert browser.hash() == ""
    assert not browser.one("#to-changes").is_displayed()

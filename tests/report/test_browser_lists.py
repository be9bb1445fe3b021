"""Lists in a real browser: counts that lead to them, policies, words, files and links to keep; paper and phones."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from selenium.webdriver import ActionChains

from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.records import records
from tests.browser import Browser, chromium
from tests.report.pages import questions, rows, total, viewing, write_report
from tests.report.test_rollouts import BLIND, line, text

pytestmark = pytest.mark.long

browser = pytest.fixture(scope="module")(chromium)
WRONG = {"old": 2, "new": 3}
"""Every which question a policy has wrong."""


@pytest.fixture(scope="module")
def flags(rich: Store, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Rollouts of two policies."""
    folder = tmp_path_factory.mktemp("rollouts")
    gold = list(records(rich, rich.manifest()))
    for name, every in WRONG.items():
        lines = [line(each, text(each) if at % every else BLIND) for at, each in enumerate(gold)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return [word for name in WRONG for word in ("--rollouts", str(folder / f"{name}.jsonl"))]


@pytest.fixture(scope="module")
def ids(rich: Store) -> list[str]:
    return [row["question_id"] for row in rows(rich.root, "SELECT question_id FROM trajectories")]


@pytest.fixture(scope="module", params=["file", "folder", "view"])
def page(
    request: pytest.FixtureRequest,
    browser: Browser,
    rich: Store,
    flags: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A store with two engines and two policies: in one file, with chunks beside it, and from the server."""
    if request.param == "view":
        with viewing(rich.root, *flags) as url:
            yield url
    else:
        more = ["--folder"] if request.param == "folder" else []
        yield write_report(rich.root, tmp_path_factory.mktemp("page"), *flags, *more)


# ---- counts


COUNTS = [
    ("", ".said a"),
    ("", ".tiles a"),
    ("", ".verdict table a"),
    ("", ".parts a"),
    ("queries", ".funnel .step a"),
    ("queries", ".funnel .lost a"),
    ("hops", "[data-chart=kept] + details a"),
    ("queries", "[data-chart=ranks] + details a"),
    ("queries", "[data-chart=agreement] + details a"),
    ("rounds", "[data-chart=gain] + details a"),
    ("rounds", "[data-chart=reward] + details a"),
    ("", "[data-chart=gates] + details a"),
    ("", "[data-chart=rollout_words] + details a"),
    ("", "section > .scroll a"),
]


def test_a_count_leads_to_a_list_of_that_length(browser: Browser, page: str) -> None:
    browser.look()
    for unit, place in COUNTS:
        browser.open(f"{page}#/", "figure")
        browser.run("for (const details of document.querySelectorAll('figure > details')) details.open = true")
        link = next(each for each in browser.all(place) if not unit or unit in (each.get_attribute("href") or ""))
        count = link.text.replace("−", "").split()[0]
        link.click()
        browser.wait(lambda: browser.all("#results .total"))
        assert total(browser).startswith(f"{count} {unit}"), place
        if not unit:
            assert len(questions(browser)) == min(50, int(count))


@pytest.mark.parametrize(
    ("chart", "mark", "there"),
    [
        ("gates", "gate: gold_not_found", "/t?flags=gold_not_found&source=musique"),
        ("kept", "kept queries: 0", "/t?hops.kept=0"),
        ("ranks", "rank of gold: 1", "/t?queries.rank.bm25=1"),
        ("agreement", "one engine: bm25", "/t?queries.valid.bm25=true&queries.valid.chargram=false"),
        ("redundancy", "redundancy: 0 – 0.05", "/t?rounds.redundancy_min=0.0&rounds.redundancy_below=0.05"),
        ("reward", "round: 2", "/t?rounds.round=2"),
    ],
)
def test_a_mark_of_a_chart_says_its_values_on_hover_and_leads_to_its_list(
    browser: Browser, page: str, chart: str, mark: str, there: str
) -> None:
    browser.look()
    browser.open(f"{page}#/", f"[data-chart={chart}] svg")
    found = browser.all(f'[data-chart={chart}] path[aria-label*="{mark}"]')[0]
    browser.run("arguments[0].scrollIntoView({block: 'center'})", found)
    ActionChains(browser.driver).move_to_element(found).perform()
    browser.wait(lambda: browser.all("#vg-tooltip-element.visible"))
    shown = browser.text("#vg-tooltip-element").split()
    assert set(mark.replace(":", "").split()) <= {word.strip(":") for word in shown}
    ActionChains(browser.driver).click().perform()
    browser.wait(lambda: browser.hash() == there)
    browser.wait(lambda: browser.all(".row"))
    assert browser.complaints() == []


def test_a_filter_without_a_field_is_told_kept_and_taken_away(browser: Browser, page: str, rich: Store) -> None:
    browser.look()
    browser.open(f"{page}#/t?hops.kept=0&rounds.round_min=3", ".row")
    assert [told.split(" ✕")[0].strip("✕\n ") for told in browser.texts(".chips li")] == [
        "hops: kept = 0",
        "rounds: round ≥ 3",
    ]
    assert total(browser).split()[1] == "hops,"
    browser.one("select[name=passed]").send_keys("failed")
    browser.wait(lambda: browser.hash() == "/t?passed=false&hops.kept=0&rounds.round_min=3")
    browser.all(".chips button")[0].click()
    browser.wait(lambda: browser.hash() == "/t?passed=false&rounds.round_min=3")
    browser.one("button[type=reset]").click()
    browser.wait(lambda: browser.hash() == "/t")
    browser.wait(lambda: total(browser) == f"{len(rows(rich.root, 'SELECT 1 FROM trajectories'))} trajectories")
    assert browser.texts(".chips li") == []


# ---- policies


def test_regressions_between_two_policies_are_filtered(browser: Browser, page: str, ids: list[str]) -> None:
    regressed = [name for at, name in enumerate(ids) if at % WRONG["old"] and at % WRONG["new"] == 0]
    browser.look()
    browser.open(f"{page}#/t", ".row")
    browser.one("select[name='policy.old']").send_keys("right")
    browser.wait(lambda: browser.hash() == "/t?policy.old=right")
    browser.one("select[name='policy.new']").send_keys("wrong")
    browser.wait(lambda: browser.hash() == "/t?policy.old=right&policy.new=wrong")
    browser.wait(lambda: total(browser) == f"{len(regressed)} trajectories")
    listed = "return [...document.querySelectorAll('.row a')].map((link) => link.dataset.id)"
    assert browser.run(listed) == regressed
    assert all("✓ old" in told and "✕ new" in told for told in browser.texts(".row .facts"))
    browser.all(".row a")[1].click()
    browser.wait(lambda: browser.all(".sides"))
    assert browser.text(".around .quiet").endswith(f"of {len(regressed)}")


def test_the_overview_counts_regressions_and_leads_to_them(browser: Browser, page: str, ids: list[str]) -> None:
    regressed = sum(1 for at in range(len(ids)) if at % WRONG["old"] and at % WRONG["new"] == 0)
    browser.look()
    browser.open(f"{page}#/", "#Where-policies-differ")
    row = browser.texts("[aria-labelledby=Where-policies-differ] tbody tr:first-child td")
    assert row == ["old", "new", str(regressed), str(len(ids))]
    shares = browser.texts("[aria-labelledby^=Right-answers] tbody tr:first-child td")
    assert shares[:6] == ["all", "all", "old", str(len(ids)), str(len(ids) // 2), str(len(ids) - len(ids) // 2)]
    assert shares[6:] == ["50 %".replace("50", "50.0"), "38.9 – 61.1 %"]
    browser.all("[aria-labelledby=Where-policies-differ] a")[0].click()
    browser.wait(lambda: browser.hash() == "/t?policy.old=right&policy.new=wrong")
    browser.wait(lambda: total(browser) == f"{regressed} trajectories")


# ---- words


def test_sub_questions_queries_and_titles_are_searched_and_shown(browser: Browser, page: str, rich: Store) -> None:
    found = (
        "SELECT question_id, {column} AS said FROM {table} JOIN trajectories USING (question_id)"
        " WHERE NOT contains(lower(concat_ws(' ', question_id, question, answer)), lower({column}))"
        " ORDER BY len(said) DESC, question_id, said LIMIT 1"
    ).format
    titles = "(SELECT question_id, unnest(documents).title AS title FROM rounds)"
    wanted = [("sub_question", "sub_questions"), ("query", "queries"), ("title", titles)]
    browser.look()
    for column, table in wanted:
        (row,) = rows(rich.root, found(column=column, table=table))
        browser.open(f"{page}#/t", ".row")
        browser.one("#search").send_keys(row["said"])
        browser.wait(lambda: browser.texts(".found"))
        links = browser.run("return [...document.querySelectorAll('.row a')].map((link) => link.dataset.id)")
        assert row["question_id"] in links
        assert browser.texts(".found mark")


# ---- files and links


def test_what_is_shown_is_downloaded(browser: Browser, page: str, tmp_path: Path, ids: list[str]) -> None:
    browser.look()
    browser.downloads(tmp_path)
    browser.open(f"{page}#/t?policy.new=wrong&sort=-reward", ".row")
    expected = browser.run("return [...document.querySelectorAll('.row a')].map((link) => link.dataset.id)")
    assert len(expected) == len([at for at in range(len(ids)) if at % WRONG["new"] == 0]) <= 50
    formats = browser.texts(".take button")[1:]
    assert formats == ["CSV", "JSONL", "Parquet"][: 3 if page.startswith("http") else 2]
    for at, suffix in enumerate(name.lower() for name in formats):
        browser.all(".take button")[at + 1].click()
        file = tmp_path / f"trajectories.{suffix}"
        browser.wait(partial(browser.has, file))
        if suffix == "csv":
            with open(file, encoding="utf-8", newline="") as lines:
                found = list(csv.DictReader(lines))
        elif suffix == "jsonl":
            found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        else:
            found = pq.read_table(file).to_pylist()
        assert [row["id"] for row in found] == expected
        assert {str(row["policy.new"]).lower() for row in found} == {"false"}
        assert all(row["question"] and float(row["reward"]) <= 1 for row in found)
    assert browser.complaints() == []


def test_a_filter_without_a_value_asks_for_nothing(browser: Browser, page: str) -> None:
    browser.look()
    browser.open(f"{page}#/t", ".row")
    whole = browser.texts(".total")
    browser.open(f"{page}#/t?passed=&reward_min=", ".row")
    assert browser.texts(".total") == whole


def test_a_link_to_what_is_shown_is_copied(browser: Browser, page: str) -> None:
    browser.look()
    browser.open(f"{page}#/t", ".row")
    whole = questions(browser)
    browser.one("#search").send_keys("born in")
    browser.one("select[name=hops]").send_keys("2 hops")
    browser.one("select[name=sort]").send_keys("reward, lowest first")
    browser.wait(lambda: browser.hash() == "/t?text=born+in&hops=2&sort=reward")
    browser.wait(lambda: questions(browser)[0] != whole[0])
    allowed = ["clipboardReadWrite", "clipboardSanitizedWrite"]  # of a person who clicks, the latter is not asked
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": allowed})
    browser.all(".take button")[0].click()
    browser.wait(lambda: browser.texts(".take button")[0] == "Link copied")
    copied = browser.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == browser.driver.current_url
    listed = questions(browser)
    browser.open(copied, ".row")
    assert questions(browser) == listed


# ---- eyes, phones, paper


PLACES = ["#/", "#/t?hops.kept_min=1&policy.old=right&text=born", "#/r", f"#/t/{quote('2hop__811040_270741')}"]


@pytest.fixture(scope="module")
def one(browser: Browser, rich: Store, flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(rich.root, tmp_path_factory.mktemp("one"), *flags, "--folder")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_nobody_is_shut_out(browser: Browser, one: str, place: str, theme: Literal["light", "dark"]) -> None:
    browser.look(theme=theme)
    browser.open(one + place, ".chart svg" if place == "#/" else "h1")
    assert browser.barriers() == []


@pytest.mark.parametrize("place", PLACES)
def test_it_fits_a_phone(browser: Browser, one: str, place: str) -> None:
    browser.look(width=360)
    browser.open(one + place, ".chart svg" if place == "#/" else "h1")
    assert browser.run("return document.documentElement.scrollWidth") == 360


def test_the_verdict_is_on_the_first_screen(browser: Browser, one: str) -> None:
    browser.look()
    browser.open(f"{one}#/", ".parts")
    assert browser.run("return document.querySelector('.parts').getBoundingClientRect().bottom") <= 800
    assert browser.run("return document.querySelector('.verdict table').scrollWidth") <= 1152


OVERLAPS = """
const boxes = [...document.querySelectorAll("td, th, .divided, .part .kind, .side")]
  .filter((node) => node.checkVisibility() && node.textContent.trim())
  .map((node) => { const range = document.createRange(); range.selectNodeContents(node);
                   return [node.textContent.slice(0, 30), range.getBoundingClientRect()]; });
const found = [];
for (const [at, [one, a]] of boxes.entries())
  for (const [other, b] of boxes.slice(at + 1))
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
      found.push(`${one} / ${other}`);
return found;
"""


@pytest.mark.parametrize("place", ["#/", PLACES[-1]])
def test_nothing_overlaps_on_paper(browser: Browser, one: str, place: str) -> None:
    browser.look(width=794)  # a page of A4, at 96 dots per inch
    browser.open(one + place, ".verdict" if place == "#/" else ".queries")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(OVERLAPS) == []
    sheet = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
    pdf = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", sheet)["data"])
    assert pdf.startswith(b"%PDF")
    browser.look()

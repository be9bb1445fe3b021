"""The report in a real browser: what one sees, clicks and types, and what hostile texts cannot do there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest

from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.page import Mode, data_script, pack, packed_script, shell
from stepsearch_data.report.view import View
from tests.browser import Browser, chromium
from tests.conftest import run_cli
from tests.report.pages import EVIL, build, numbers, questions, rows, total, viewing, write_report
from tests.rows import jsonl, write_lines

pytestmark = pytest.mark.long

LINK = "javascript:window.pwned=3"
STRUCTURE = {"kind", "verdict", "spec"}  # what no text of a store can be

browser = pytest.fixture(scope="module")(chromium)


@pytest.fixture(scope="module")
def sample(browser: Browser, sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the embedded sample, one file."""
    return write_report(sample_store, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module", params=["file", "folder", "view"])
def page(
    request: pytest.FixtureRequest, browser: Browser, sample_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The same trajectories from inside the page, from chunks beside it, and from the server."""
    if request.param == "view":
        with viewing(sample_store) as url:
            yield url
    else:
        flags = ["--folder"] if request.param == "folder" else []
        yield write_report(sample_store, tmp_path_factory.mktemp("page"), *flags)


# ---- the same in one file, in a folder, and live


def test_words_filters_and_order_find_what_sql_finds(browser: Browser, page: str, sample_store: Path) -> None:
    browser.look()
    browser.open(f"{page}#/t", ".row")
    assert total(browser) == "70 trajectories"
    browser.one("select[name=hops]").send_keys("4 hops")
    browser.one("select[name=sort]").send_keys("reward, lowest first")
    browser.one("#search").send_keys("the WHO")
    browser.wait(lambda: browser.hash() == "/t?text=the+WHO&hops=4&sort=reward")
    said = (
        "SELECT question_id, question AS said FROM trajectories UNION ALL SELECT question_id, answer FROM trajectories"
        " UNION ALL SELECT question_id, question_id FROM trajectories"
        " UNION ALL SELECT question_id, query FROM queries"
        " UNION ALL SELECT question_id, sub_question FROM sub_questions"
        " UNION ALL SELECT question_id, unnest(documents).title FROM rounds"
    )
    found = f"question_id IN (SELECT question_id FROM ({said}) WHERE contains(lower(said), '{{}}'))".format
    expected = rows(
        sample_store,
        "SELECT question, sum(step_reward) AS reward FROM trajectories JOIN rounds USING (question_id)"
        f" WHERE hops = 4 AND {found('the')} AND {found('who')} GROUP BY question_id, question",
    )
    assert expected
    browser.wait(lambda: len(questions(browser)) == len(expected))
    assert sorted(questions(browser)) == sorted(row["question"] for row in expected)
    assert numbers(browser, ".measure:nth-child(5) .value") == pytest.approx(
        sorted(row["reward"] for row in expected), abs=0.0051
    )
    assert browser.texts(".row mark")


def test_an_address_opens_a_trajectory_and_the_way_back_leads_to_the_results(browser: Browser, page: str) -> None:
    browser.look()
    browser.open(f"{page}#/t?hops=3", ".row")
    listed = questions(browser)
    browser.all(".row a")[1].click()
    browser.wait(lambda: browser.texts("h1") == [listed[1]])
    assert browser.texts(".part .kind")[:4] == ["Think", "Search", "Information", "Observation"]
    assert browser.texts(".part .kind")[-1] == "Answer"
    address = browser.driver.current_url
    browser.one(".around a[rel=next]").click()
    browser.wait(lambda: browser.texts("h1") == [listed[2]])
    browser.driver.back()
    browser.wait(lambda: browser.texts("h1") == [listed[1]])
    browser.driver.back()
    browser.wait(lambda: questions(browser) == listed)
    assert browser.driver.switch_to.active_element.text == listed[1]
    browser.open(address, ".line")
    assert browser.text("h1") == listed[1]
    assert browser.text(".around .quiet") == f"2 of {len(listed)}"


def test_a_trajectory_shows_what_the_store_knows_of_it(browser: Browser, page: str, sample_store: Path) -> None:
    (row,) = rows(
        sample_store,
        "SELECT question_id, answer, rollout FROM trajectories"
        " WHERE complete AND question_id IN (SELECT question_id FROM queries WHERE NOT kept) ORDER BY ALL LIMIT 1",
    )
    measures = ("information_gain", "redundancy_penalty", "step_reward")
    known = rows(
        sample_store,
        f"SELECT query, sub_question, {', '.join(measures)} FROM rounds"
        f" WHERE question_id = '{row['question_id']}' ORDER BY round",
    )
    rejected = rows(
        sample_store, f"SELECT query FROM queries WHERE question_id = '{row['question_id']}' AND NOT kept ORDER BY ALL"
    )
    browser.open(f"{page}#/t/{quote(row['question_id'], safe='')}", ".line")
    assert browser.texts("p.query") == [found["query"] for found in known]
    assert [told for told in browser.texts(".facts dd") if re.search(r"answer|keys", told)] == []  # always 1
    assert browser.texts(".line h3 span") == [found["sub_question"] for found in known]
    rewards = [of_round[name] for of_round in known for name in measures]
    assert numbers(browser, ".scores dd") == pytest.approx(rewards, abs=0.0051)
    assert sorted(browser.texts("tr.rejected .query")) == [lost["query"] for lost in rejected]
    assert set(browser.texts("tr.rejected .verdict")) == {"✕ rejected"}
    assert browser.texts(".line .gold .mark") == ["★ gold"] * len(browser.all(".line .gold"))
    assert browser.text(".answer .body") == row["answer"]
    browser.one(".raw summary").click()
    assert browser.text(".raw pre").split() == row["rollout"].split()


def test_what_a_policy_did_stands_beside_the_gold_trajectory(
    browser: Browser, sample_store: Path, tmp_path: Path
) -> None:
    asked = "2hop__811040_270741"
    found = View(Store(sample_store)).trajectory(asked)
    assert found
    wrong = f"<think> I know it. {EVIL} </think> <search> {EVIL} </search>\n<information> {EVIL} </information>"
    row = {"id": asked, "response": f"{wrong}\n<answer> {EVIL} </answer>", "target": [found["answer"]]}
    write_lines(tmp_path / "rollouts.jsonl", [row])
    with viewing(sample_store, "--rollouts", f"<i>policy</i>={tmp_path / 'rollouts.jsonl'}") as url:
        browser.look(width=360)
        browser.open(f"{url}#/t/{quote(asked)}", ".sides")
        assert browser.run("return document.documentElement.scrollWidth") == 360
        browser.look()
        browser.open(f"{url}#/t/{quote(asked)}", ".sides")
        gold, policy = browser.texts(".sides > div > h3")
        assert gold == "Gold trajectory"
        assert policy.startswith("<i>policy</i>")
        assert "✕ wrong · F1 0 · 1 search" in policy
        assert browser.run("return window.pwned") is None
        assert browser.complaints() == []
        assert browser.barriers() == []


@pytest.mark.parametrize("form", ["file", "view"])
def test_rejected_rows_are_found_by_stage_reason_and_words(browser: Browser, tmp_path: Path, form: str) -> None:
    bad = [jsonl(f"q{n}", answer=EVIL if n % 2 else "") for n in range(1, 205)]
    source = write_lines(tmp_path / "rows.jsonl", [jsonl("good"), *bad])
    settings = ("--source", f"jsonl={source}", "--set", "run.max_reject_share=1")
    assert run_cli("build", "--quiet", "--store", tmp_path / "store", *settings).returncode == 3
    shown = viewing(tmp_path / "store") if form == "view" else nullcontext(write_report(tmp_path / "store", tmp_path))
    with shown as url:
        browser.look()
        browser.open(f"{url}#/r", "td")
        assert total(browser) == "204 rows"
        assert browser.texts("tbody tr:first-child td")[:4] == ["load", "jsonl", "2", "q1"]
        browser.one(".pages a[rel=next]").click()
        browser.wait(lambda: browser.hash() == "/r?offset=200" and len(browser.all("tbody tr")) == 4)
        browser.one("input[type=search]").send_keys("q13 ")
        browser.wait(lambda: total(browser) == "11 rows")
        browser.one("#to-overview").click()
        browser.wait(lambda: browser.all(".lost a"))
        count = browser.all(".lost a")[0].text.strip("−")
        browser.all(".lost a")[0].click()
        browser.wait(lambda: total(browser) == f"{count} rows")
        assert int(count) == 102
        assert browser.barriers() == []
        browser.look(width=360)
        browser.open(f"{url}#/r", "td")
        assert browser.run("return document.documentElement.scrollWidth") == 360
        assert browser.run("return window.pwned") is None
        assert browser.complaints() == []


def test_rounds_of_a_policy_are_beside_those_of_gold_on_screen_and_on_paper(
    browser: Browser, sample_store: Path, tmp_path: Path
) -> None:
    asked = "2hop__811040_270741"
    found = View(Store(sample_store)).trajectory(asked)
    assert found
    rounds = "\n".join(f"<think> {n} </think>\n<search> {n} </search>\n<information> {n} </information>" for n in "abc")
    row = {"id": asked, "response": f"{rounds}\n<answer> {found['answer']} </answer>", "target": [found["answer"]]}
    write_lines(tmp_path / "rollouts.jsonl", [row])
    url = write_report(sample_store, tmp_path, "--folder", "--rollouts", str(tmp_path / "rollouts.jsonl"))
    browser.look()
    browser.open(f"{url}#/t/{quote(asked)}", ".sides")
    tops = "return [...arguments[0].querySelectorAll('.line > li')].map((round) => round.getBoundingClientRect().top)"
    for media in ("screen", "print"):
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
        gold, policy = (browser.run(tops, side) for side in browser.all(".sides > div"))
        assert (len(gold), len(policy)) == (3, 4)
        assert gold == policy[:3]
        ends = "return [...document.querySelectorAll('.sides table')].map((t) => t.getBoundingClientRect().right)"
        (limit, _) = browser.run(
            "return [...document.querySelectorAll('.sides > div')].map((d) => d.getBoundingClientRect().right)"
        )
        assert max(browser.run(ends)) <= limit


def test_nothing_is_asked_of_the_network_and_nothing_could_be(browser: Browser, page: str) -> None:
    browser.open(f"{page}#/", ".chart svg")
    browser.open(f"{page}#/t", ".row")
    browser.all(".row a")[0].click()
    browser.wait(lambda: browser.all(".line"))
    home = page.rpartition("/")[0]
    assert all(url.startswith((home, "data:", "blob:", "about:")) for url in browser.requests())
    assert browser.complaints() == []
    stopped = """const [url, done] = arguments;
        addEventListener("securitypolicyviolation", ({effectiveDirective}) => done(effectiveDirective), {once: true});
        fetch(url).catch(() => {});"""
    assert browser.driver.execute_async_script(stopped, "http://127.0.0.1:9/") == "connect-src"


def test_what_is_not_there_is_said(browser: Browser, page: str) -> None:
    browser.open(f"{page}#/t/no%2Fsuch%20id")
    assert browser.text("h1") == "No such trajectory"
    assert browser.text("main code") == "no/such id"
    browser.open(f"{page}#/t?text=zzzz", ".total")
    assert total(browser) == "Nothing found"


# ---- keys and eyes


def test_all_can_be_done_with_keys(browser: Browser, sample: str) -> None:
    browser.look()
    browser.open(sample, ".tiles")
    browser.press("/")
    browser.wait(lambda: browser.run("return document.activeElement.id") == "search")
    browser.press("j", "?", "n", "/")
    assert browser.run("return document.activeElement.value") == "j?n/"
    assert not browser.all("dialog[open]")
    browser.wait(lambda: browser.hash() == "/t?text=j%3Fn%2F")
    browser.press(*["BACKSPACE"] * 4)
    browser.wait(lambda: browser.hash() == "/t" and total(browser) == "70 trajectories")
    browser.press("TAB")
    listed = questions(browser)
    browser.press("j", "j", "k", "ARROW_DOWN", "ENTER")
    browser.wait(lambda: browser.texts("h1") == [listed[1]])
    assert browser.run("return document.activeElement.tagName") == "H1"
    browser.press("n")
    browser.wait(lambda: browser.texts("h1") == [listed[2]])
    browser.press("n")
    browser.wait(lambda: browser.texts("h1") == [listed[3]])
    browser.press("p")
    browser.wait(lambda: browser.texts("h1") == [listed[2]])
    browser.press("ESCAPE")
    browser.wait(lambda: questions(browser) == listed)
    assert browser.driver.switch_to.active_element.text == listed[2]
    browser.press("?")
    assert browser.all("dialog[open]")
    browser.press("ESCAPE")
    assert not browser.all("dialog[open]")


def test_stepping_past_the_last_result_turns_the_page(browser: Browser, sample: str) -> None:
    browser.open(f"{sample}#/t", ".row")
    browser.run("[...document.querySelectorAll('.row a')].at(-1).focus()")
    browser.press("j")
    browser.wait(lambda: browser.hash() == "/t?offset=50" and len(questions(browser)) == 20)
    assert browser.driver.switch_to.active_element.text == questions(browser)[0]


def test_letters_are_no_keys_when_they_are_switched_off(browser: Browser, sample: str) -> None:
    browser.open(f"{sample}#/t", ".row")
    browser.one("#help-open").click()
    browser.one("#keys-on").click()
    browser.press("ESCAPE")
    browser.press("/")
    assert browser.run("return document.activeElement.id") != "search"
    browser.run("localStorage.clear()")


def test_results_are_told_to_a_screen_reader(browser: Browser, sample: str) -> None:
    browser.open(f"{sample}#/t", ".row")
    browser.one("#search").send_keys("Seville")
    browser.wait(lambda: browser.hash() == "/t?text=Seville")
    browser.wait(lambda: browser.run("return document.querySelector('[role=status]').textContent") == total(browser))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("place", ["", "#/t", "#/t/2hop__811040_270741"])
def test_nobody_is_shut_out(browser: Browser, sample: str, place: str, theme: Literal["light", "dark"]) -> None:
    browser.look(theme=theme)
    browser.open(sample + place)
    assert browser.barriers() == []


@pytest.mark.parametrize("place", ["", "#/t", "#/t/2hop__811040_270741"])
def test_it_fits_a_phone(browser: Browser, sample: str, place: str) -> None:
    browser.look(width=360)
    browser.open(sample + place, "h1" if place else ".chart svg")
    assert browser.run("return document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_left_of_documents_is_shown_to_everybody(
    browser: Browser, harvest: Path, tmp_path: Path, theme: Literal["light", "dark"]
) -> None:
    report = write_report(harvest, tmp_path)
    browser.look(width=360, theme=theme)
    browser.open(report, ".chart svg")
    assert browser.run("return document.documentElement.scrollWidth") == 360
    assert browser.barriers() == []
    assert "Questions that failed a check" in browser.texts("h2")
    *_, fit = browser.all("section[aria-labelledby=documents] .step .count a")
    kept = fit.text
    fit.click()
    browser.wait(lambda: browser.hash() == "/t?source=corpus&complete=true&passed=true")
    assert total(browser) == f"{kept} trajectories"


def test_the_theme_is_chosen_and_remembered(browser: Browser, sample: str) -> None:
    browser.look(theme="light")
    browser.open(sample)
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(colour)
    browser.one("#theme").click()
    assert browser.text("#theme") == "◐ Theme: light"
    browser.one("#theme").click()
    dark = browser.run(colour)
    assert dark != light
    browser.open(sample)
    assert browser.run(colour) == dark
    browser.run("localStorage.clear()")


def test_on_paper_everything_is_unfolded(browser: Browser, sample: str) -> None:
    browser.look(theme="dark")
    browser.open(f"{sample}#/t/2hop__811040_270741", ".line")
    closed = len(browser.all("main details:not([open])"))
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.texts("main details:not([open]) > summary") == ["Text of the rollout"]
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert len(browser.all("main details:not([open])")) == closed


# ---- real rows


@pytest.fixture(scope="module")
def real_store(browser: Browser, real_sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ["--engine=bm25", "--engine=chargram", "--limit=40"]
    return build(tmp_path_factory.mktemp("real") / "store", *real_sources, *settings)


@pytest.fixture(scope="module")
def real(real_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of real rows."""
    return write_report(real_store, tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize("report", ["sample", "real"])
def test_all_charts_are_drawn_and_have_a_table(browser: Browser, report: str, request: pytest.FixtureRequest) -> None:
    browser.look()
    browser.open(request.getfixturevalue(report))
    charts = len(browser.all("figure"))
    assert charts >= 8
    browser.wait(lambda: len(browser.all(".chart svg")) == charts)
    marks = "return [...document.querySelectorAll('.chart')].map((c) => c.querySelectorAll('.role-mark path').length)"
    assert all(browser.run(marks))
    cells = "return [...document.querySelectorAll('figure')].map((f) => f.querySelectorAll('tbody tr').length)"
    assert all(browser.run(cells))
    assert browser.complaints() == []


def test_real_rows_are_found_and_shown(browser: Browser, real: str, real_store: Path) -> None:
    browser.open(f"{real}#/t?source=hotpotqa&passed=false", ".row")
    failed = rows(real_store, "SELECT question_id FROM quality WHERE source = 'hotpotqa' AND NOT passed")
    assert len(questions(browser)) == len(failed) > 0
    for row in rows(real_store, "SELECT question_id, answer FROM trajectories ORDER BY hops DESC, question_id LIMIT 3"):
        browser.open(f"{real}#/t/{quote(row['question_id'], safe='')}", ".line")
        assert browser.texts(".answer .body") == [row["answer"]]
    assert browser.complaints() == []


def test_trajectories_on_which_engines_disagree_are_found(browser: Browser, real: str, real_store: Path) -> None:
    browser.open(f"{real}#/t", ".row")
    browser.one("select[name=disagree]").send_keys("yes")
    browser.wait(lambda: browser.hash() == "/t?disagree=true")
    disagree = "SELECT DISTINCT question_id FROM queries WHERE valid_engines > 0 AND valid_engines < engines"
    expected = len(rows(real_store, f"SELECT 1 FROM trajectories WHERE question_id IN ({disagree})"))
    assert 0 < expected < len(rows(real_store, "SELECT 1 FROM trajectories"))
    browser.wait(lambda: total(browser) == f"{expected} trajectories")


# ---- hostile texts


def test_hostile_rows_stay_text_from_the_source_to_the_screen(
    browser: Browser, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    row = jsonl("evil<b>", question=f"Where was the composer of The Barber of Seville born? {EVIL}")
    for paragraph in row["paragraphs"]:
        paragraph.update(title=f"{paragraph['title']} {EVIL}", text=f"{paragraph['text']} {EVIL}")
    source = write_lines(tmp_path / "evil.jsonl", [row])
    store = build(tmp_path / "store", f"--source=jsonl={source}")
    browser.open(write_report(store, tmp_path) + "#/t", ".row")
    assert EVIL.strip() in questions(browser)[0]
    browser.all(".row a")[0].click()
    browser.wait(lambda: browser.all(".line"))
    assert EVIL.strip() in browser.text("h1")
    assert all(EVIL.strip() in title for title in browser.texts(".line .documents .title"))
    assert not browser.all("main img, main script")
    assert browser.run("return window.pwned") is None


def poisoned(value: Any, name: str = "") -> Any:
    """The same shape with hostile text in every string."""
    if isinstance(value, Mapping):
        return {key: inner if key in STRUCTURE else poisoned(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [poisoned(inner, name) for inner in value]
    if name == "url":
        return LINK
    return value + EVIL if isinstance(value, str) else value


def poisoned_chart(chart: dict[str, Any]) -> dict[str, Any]:
    data = {"values": poisoned(chart["spec"]["data"]["values"])}
    return {**poisoned(chart), "spec": {**chart["spec"], "data": data}}


def test_no_text_of_any_field_becomes_markup_or_runs(browser: Browser, sample_store: Path, tmp_path: Path) -> None:
    view = View(Store(sample_store))
    record = view.trajectory("2hop__811040_270741")
    (row,) = view.trajectories({"text": ["2hop__811040_270741"]}).rows
    texts = row.pop("texts")
    assert record
    summary: dict[str, Any] = poisoned(view.summary())
    summary["charts"] = [poisoned_chart(dict(chart)) for chart in view.summary()["charts"]]
    index = {"chunk_rows": 1, **{name: [poisoned(value)] for name, value in row.items()}}
    about = shell(Mode.embedded, EVIL)
    data = [data_script("mode", {"mode": Mode.embedded}), data_script("summary", summary)]
    data += [packed_script("index", pack(index)), packed_script("chunk-0", pack([poisoned(record)]))]
    data += [packed_script("texts", pack([poisoned(texts)]))]
    path = tmp_path / "evil.html"
    path.write_bytes(about.before + b"".join(data) + about.after)
    browser.look()
    browser.open(path.as_uri())
    browser.wait(lambda: len(browser.all(".chart svg")) == len(summary["charts"]))
    browser.open(f"{path.as_uri()}#/t", ".row")
    browser.all(".row a")[0].click()
    browser.wait(lambda: browser.all(".line"))
    assert browser.texts(".documents a") == []
    assert not browser.all("main img, main script, head img")
    assert browser.run("return window.pwned") is None
    assert browser.complaints() == []

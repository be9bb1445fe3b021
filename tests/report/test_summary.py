from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import vl_convert

from stepsearch_data.core.errors import StoreError
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report.shapes import Chart, Facts, Step, Summary
from stepsearch_data.report.summary import FOUND, summarize
from stepsearch_data.stages import STAGES
from tests.conftest import Run
from tests.report.holds import check
from tests.report.shown import build_rows, listed, opened, question_row, summary_of
from tests.search_servers import SearchServer

KEPT = "Queries kept"
CALLS = [
    {"stage": "decompose", "model": "m", "cached": False, "cost": 0.75, "latency": latency, "completion_tokens": 5}
    for latency in (1.0, 2.0, 9.0)
] + [{"stage": "queries", "model": "m", "cached": True, "cost": 0.0, "latency": 0.0, "completion_tokens": 5}]
REST = {"prompt_tokens": 7, "attempts": 1, "batch": False, "finish_reason": "stop", "answered_at": "2026-01-01"}


UNIT = {
    **dict.fromkeys(("hops",), "hops"),
    **dict.fromkeys(("rounds",), "rounds"),
    **dict.fromkeys(("queries", "answered", "valid alone", "not valid alone"), "queries"),
    **dict.fromkeys(("both valid", "only one", "only the other", "neither"), "queries"),
}
"""What a column of counts counts, where it is not trajectories."""


@pytest.fixture(scope="module")
def summary(rich: Store) -> Summary:
    return summary_of(rich)


@pytest.fixture
def copy(sample: Store, tmp_path: Path) -> Store:
    shutil.copytree(sample.root, tmp_path / "store")
    return Store.open(tmp_path / "store")


def build_up_to(store: Store, last: str) -> list[str]:
    """Have the store end after a stage; the stages that it then lacks."""
    names = [stage.name for stage in STAGES if not stage.optional]
    ends = names.index(last) + 1
    whole = store.manifest()
    partial = Manifest(stages={name: whole.stages[name] for name in names[:ends]})
    store.write_text("manifest.json", partial.model_dump_json())
    return names[ends:]


def steps(found: Summary) -> dict[str, Step]:
    return {step["name"]: step for step in found["funnel"]}


def lost(step: Step) -> int:
    return sum(reason["count"] for reason in step["lost"])


def chart(found: Summary, name: str) -> Chart:
    return next(chart for chart in found["charts"] if chart["id"] == name)


def table(found: Summary, title: str) -> Facts:
    return next(facts for facts in found["tables"] if facts["title"] == title)


def test_it_has_the_shape_that_the_page_expects(summary: Summary) -> None:
    check(summary, Summary)
    assert json.loads(json.dumps(summary)) == summary


def test_a_gate_that_looked_at_nothing_says_so(summary: Summary) -> None:
    found = {row[0]: row[2] for row in table(summary, "Quality gates")["rows"]}
    assert found["eval_overlap"] == found["eval_single_hop"] == "not checked"
    assert found["duplicate"] == 0


def test_every_chart_is_drawn_by_vega_lite_and_has_its_numbers_as_a_table(summary: Summary) -> None:
    names = [each["id"] for each in summary["charts"]]
    assert names[:8] == ["hops", "kept", "ranks", "agreement", "gain", "redundancy", "reward", "gates"]
    for each in summary["charts"]:
        drawn = vl_convert.vegalite_to_svg({**each["spec"], "width": 300})
        assert drawn.count("<path") + drawn.count("<text") > 5
        assert each["spec"]["width"] == "container"
        values = each["spec"]["data"]["values"]
        assert [[value[column] for column in each["columns"]] for value in values] == each["rows"]


def test_colours_are_left_to_the_page(summary: Summary) -> None:
    specs = json.dumps([each["spec"] for each in summary["charts"]])
    assert "#" not in specs
    assert "scheme" not in specs


def test_a_source_has_the_same_colour_in_all_charts(summary: Summary) -> None:
    domains = [chart(summary, name)["spec"]["encoding"]["color"]["scale"]["domain"] for name in ("hops", "gates")]
    assert domains == [summary["facets"]["source"]] * 2


def test_histograms_count_every_row_once(summary: Summary, rich: Store) -> None:
    rows = {name: output.rows for entry in rich.manifest().stages.values() for name, output in entry.outputs.items()}
    for name, counted in (
        ("gain", "rounds"),
        ("redundancy", "rounds"),
        ("rollout_words", "trajectories"),
        ("document_words", "passages"),
    ):
        bins = chart(summary, name)["rows"]
        assert sum(int(count or 0) for *_, count in bins) == rows[counted]
    for name in ("gain", "redundancy"):
        assert max(float(end or 0) for _, end, _ in chart(summary, name)["rows"]) <= 1


def test_two_engines_agree_both_ways_alike(summary: Summary) -> None:
    there, back = chart(summary, "agreement")["rows"]
    assert there[:2] == ["bm25", "chargram"]
    assert back[:2] == ["chargram", "bm25"]
    assert there[3] == back[3]
    assert (there[4], there[5]) == (back[5], back[4])
    assert there[2] == sum(int(count or 0) for count in there[3:7])


def test_paid_calls_are_told_with_their_cost_and_latency(copy: Store) -> None:
    (copy.root / "log" / "llm_calls.jsonl").write_text("\n".join(json.dumps({**REST, **call}) for call in CALLS))
    found = summary_of(copy)
    spent = {"title": "Spent on models", "columns": ["Spent on models"], "rows": [["$2.25"]], "links": [{}]}
    assert spent in cast("list[Any]", found["tiles"])
    assert table(found, "Calls of language models")["rows"] == [
        ["decompose", "m", 3, 0, 21, 15, 2.25, 2.0, 8.3],
        ["queries", "m", 0, 1, None, None, 0.0, None, None],
    ]
    assert chart(found, "latency")["rows"] == [["decompose, m", 3, 2.0, 8.3]]
    assert chart(found, "cost")["rows"] == [["decompose", "m", 21, 15, 2.25]]
    for name in ("latency", "cost"):
        assert "<path" in vl_convert.vegalite_to_svg({**chart(found, name)["spec"], "width": 300})


def test_every_count_leads_to_the_list_of_just_these(rich: Store) -> None:
    with opened(rich) as connection:
        found = summarize(rich, rich.manifest(), connection)
        leading: list[Chart | Facts] = [*found["charts"], *found["tables"], *found["tiles"]]
        leading += [found["verdict"]["table"], *found["verdict"]["parts"]]
        seen: set[tuple[str, str]] = set()
        for each in leading:
            assert len(each["links"]) in {0, len(each["rows"])}
            for row, links in zip(each["rows"], each["links"], strict=False):
                for column, link in links.items():
                    counted = row[each["columns"].index(column)]
                    if isinstance(counted, int) and column != "Trajectories":
                        assert listed(connection, link)[UNIT.get(column, "trajectories")] == counted, (each, link)
                        seen.add((each["title"], column))
                    else:
                        assert listed(connection, link)
    charts = {title for title, _ in seen} & {each["title"] for each in found["charts"]}
    assert {each["title"] for each in found["charts"]} - charts == {"Length of documents"}  # these are passages
    assert {("Search engines", "valid alone"), ("Engine agreement", "neither"), ("Sources", "trajectories")} <= seen


@pytest.mark.parametrize("last", ["load", "decompose", "queries", "retrieve", "filter", "trajectories"])
def test_a_store_that_is_not_built_to_its_end_is_shown_as_far_as_it_goes(copy: Store, last: str) -> None:
    left = build_up_to(copy, last)
    found = summary_of(copy)
    check(found, Summary)
    assert found["notes"] == [f"Not built yet: {', '.join(left)}."]
    assert ("trajectories" in steps(found)) == (last == "trajectories")
    assert "passed" not in steps(found)


@pytest.mark.parametrize(("last", "told"), [("retrieve", []), ("filter", [KEPT, FOUND])])
def test_what_was_not_run_has_no_number(copy: Store, last: str, told: list[str]) -> None:
    build_up_to(copy, last)
    found = summary_of(copy)
    assert sorted(tile["title"] for tile in found["tiles"]) == sorted(told)
    assert ("kept" in steps(found)) == (KEPT in told)


def test_what_comes_from_earlier_inputs_is_left_out_and_said(copy: Store, cli: Run) -> None:
    change = ("--set", "queries.per_sub_question=2", "--to", "queries")
    assert cli("build", "--store", copy.root, "--quiet", *change).returncode == 0
    found = summary_of(copy)
    check(found, Summary)
    assert [*steps(found)] == ["read", "questions", "hops", "queries"]
    assert any("earlier inputs: retrieve, filter, trajectories, quality, pairs" in note for note in found["notes"])
    assert found["tiles"] == []


def test_a_store_without_questions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 2, "stages": {}}')
    with pytest.raises(StoreError, match="no questions"):
        summary_of(Store.open(tmp_path))


def test_provenance_names_what_was_read_and_no_path_of_the_user(tmp_path: Path) -> None:
    with SearchServer("http", lambda _: []) as server:
        engines = ("--engine", "bm25", "--engine", f"http={server.url}")
        held_out = tmp_path / "held out.jsonl"
        held_out.write_text(json.dumps(question_row("other")))
        evaluation = ("--set", f'quality.eval_sources=["jsonl={held_out}"]')
        store = build_rows(tmp_path, [question_row("q")], *engines, *evaluation)
    found = summary_of(store)
    assert str(tmp_path) not in json.dumps(found)
    assert {row[0] for row in table(found, "Stages")["rows"]} == {*store.manifest().stages}
    assert [row[0] for row in table(found, "Inputs")["rows"]] == ["source 1 (jsonl)", "corpus of 1 passages"]
    assert [row[0] for row in table(found, "Engines and their settings")["rows"]] == ["bm25", "http"]

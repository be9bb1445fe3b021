"""What is left of documents, step by step: counts that add up, and dollars that are those of the calls."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.attrition import Step, model_of, steps, unasked
from stepsearch_data.pipeline.store import Store
from stepsearch_data.sql import connect, query
from stepsearch_data.stages.proof.decision import READINGS
from tests import harvest as harvests
from tests.conftest import run_cli
from tests.rows import jsonl

RULES = ("unlinked_hop", "bridge_named", "answer_named", "answer_not_in_gold", "one_paragraph")


def steps_of(store: Path) -> dict[str, Step]:
    opened = Store.open(store)
    with opened.reading() as manifest, connect(opened, manifest) as connection:
        return {step.name: step for step in steps(connection, manifest)}


def number(store: Path, sql: str) -> float:
    with query(Store.open(store), sql) as found:
        (value,) = found.read_all().column(0).to_pylist()
    return float(value)


def test_the_steps_are_in_the_order_of_a_build(harvest: Path) -> None:
    names = [name for name in steps_of(harvest) if not re.match("left out|chains|drawn", name)]
    assert names == [
        *("passages", "titles", "links"),
        *("not composed: faulty", "not composed: no reply", "not composed: skipped", "composed"),
        *RULES,
        *READINGS,
        *("without a verdict", "passed", "trajectories", "complete", "fit"),
    ]


def test_every_chain_that_was_drawn_is_accounted_for(harvest: Path) -> None:
    found = steps_of(harvest)
    drawn = sum(step.left for name, step in found.items() if name.startswith("drawn "))
    lost = sum(step.left for name, step in found.items() if name.startswith("not composed: "))
    assert drawn == number(harvest, "SELECT count(*) FROM chains") == found["composed"].left + lost
    failed = sum((step.of or 0) - step.left for name, step in found.items() if name in (*RULES, *READINGS))
    assert found["closed_book"].left < found["composed"].left
    assert found["left_one_out"].left < found["answerable"].left == found["left_one_out"].of
    assert found["composed"].left - failed == found["passed"].left + found["without a verdict"].left
    assert found["without a verdict"].left == number(harvest, "SELECT count(*) FROM rejects WHERE stage = 'verify'")
    assert found["passed"].left == number(harvest, "SELECT count(*) FROM questions") == found["trajectories"].left


def test_shares_are_of_the_chains_drawn_and_those_of_checks_of_the_step_before(harvest: Path) -> None:
    found = steps_of(harvest)
    assert found["links"].of is None
    assert found["composed"].of == found["passed"].of == number(harvest, "SELECT count(*) FROM chains")
    assert found["unlinked_hop"].of == found["composed"].left
    assert found["fit"].of == found["passed"].left


def test_a_question_that_is_left_has_cost_what_was_paid_for_all_that_were_lost(harvest: Path) -> None:
    found = steps_of(harvest)
    composed = number(harvest, "SELECT sum(cost) FROM llm_calls WHERE stage = 'compose'")
    paid = number(harvest, "SELECT sum(cost) FROM llm_calls")
    assert 0 < composed < paid
    assert found["composed"].dollars == pytest.approx(composed)
    assert found["passed"].dollars == found["fit"].dollars == pytest.approx(paid)
    assert found["passed"].each == pytest.approx(paid / found["passed"].left)
    assert found["links"].dollars is None
    assert found["closed_book"].each is None


def test_other_sources_pay_for_their_own_readings(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(jsonl("q1")))
    store = harvests.build(tmp_path, "--source", f"jsonl={tmp_path / 'rows.jsonl'}", "--to", "decide")
    found = steps_of(store)
    by_stage = (number(store, f"SELECT sum(cost) FROM llm_calls WHERE stage = '{n}'") for n in ("compose", "verify"))
    composed, verified = by_stage
    asked = "SELECT avg((source = 'corpus')::INT) FROM checks WHERE judge = 'mock'"
    assert found["passed"].dollars == pytest.approx(composed + number(store, asked) * verified)
    assert number(store, asked) < 1
    assert [*found][-1] == "passed"


def test_without_a_price_or_a_log_dollars_are_not_known(harvest: Path, tmp_path: Path) -> None:
    store = harvests.build(tmp_path, "--to", "compose", "--set", "llm.prices={}")
    assert [*steps_of(store)][-1] == "composed"
    assert steps_of(store)["composed"].dollars is None
    (store / "log" / "llm_calls.jsonl").unlink()
    assert steps_of(store)["composed"].dollars is None


def test_replayed_calls_cost_nothing_and_one_without_a_price_makes_the_sum_unknown(
    harvest: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(harvest, tmp_path / "store")
    log = store / "log" / "llm_calls.jsonl"
    calls = [json.loads(line) for line in log.read_text().splitlines()]

    def told(changed: Iterable[dict[str, Any]]) -> tuple[float | None, float | None]:
        log.write_text("".join(json.dumps(call) + "\n" for call in changed))
        found = steps_of(store)
        return found["composed"].dollars, found["passed"].dollars

    verified = sum(call["cost"] for call in calls if call["stage"] == "verify")
    replayed = [{**call, "cached": True, "cost": 0.0} if call["stage"] == "compose" else call for call in calls]
    assert told(replayed) == pytest.approx((0.0, verified))
    first = next(call for call in calls if call["stage"] == "compose")
    assert told({**call, "cost": 0.0} if call is first else call for call in calls) == (None, None)


def test_what_no_model_has_read_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert run_cli("build", "--store", store, "--quiet", "--source", "corpus=sample", "--to", "decide").returncode == 0
    found = steps_of(store)
    assert found["passed by rules alone"].left == found["passed by rules alone"].of == found["passed"].left
    assert found["passed"].dollars is None
    opened = Store.open(store)
    with opened.reading() as manifest, connect(opened, manifest) as connection:
        assert unasked(connection, manifest) == [*READINGS]
        assert model_of(manifest, "compose") is None


def test_a_store_without_documents_has_no_steps(sample_store: Path) -> None:
    assert steps_of(sample_store) == {}

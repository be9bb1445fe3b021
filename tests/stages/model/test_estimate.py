"""What a dry run tells: exact numbers where they are known, and two bounds where replies decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.schemas.rows import Paragraph
from stepsearch_data.schemas.tables import CHAINS, COMPOSED, LOADED, PARAGRAPHS, QUESTIONS, Table
from stepsearch_data.stages.compose import ComposeConfig
from stepsearch_data.stages.decompose import DecomposeConfig
from stepsearch_data.stages.model.estimate import Asked, Estimate, asked_of, estimate
from stepsearch_data.stages.queries import QueriesConfig
from stepsearch_data.stages.verify import VerifyConfig
from tests.builders import chain, composed, question
from tests.stages.composing.replies import COMPOSER, OPERA, bridge, comparison

CONFIGS: dict[str, Any] = {
    "compose": ComposeConfig(llm="m"),
    "verify": VerifyConfig(llm="m", samples=1, sample_all=0),
    "decompose": DecomposeConfig(llm="m"),
    "queries": QueriesConfig(llm="m"),
}
CHAINED = Asked([question()], [bridge(), comparison()], [bridge().longest(), comparison().longest()])


@pytest.fixture
def estimated(tmp_path: Path) -> Any:
    def run(asked: Asked, **configs: Any) -> dict[str, Estimate]:
        settings = LlmSettings(replay=tmp_path / "replay", prices={"m": (1.0, 4.0)})
        return {found.stage: found for found in estimate(asked, CONFIGS.keys(), {**CONFIGS, **configs}, {}, settings)}

    return run


def calls(found: Estimate) -> tuple[int, int | None]:
    return found.calls, found.most.calls if found.most else None


def test_questions_that_are_there_are_counted_exactly(estimated: Any) -> None:
    found = estimated(Asked([question()]))
    assert {stage: calls(of) for stage, of in found.items()} == {
        "verify": (1, 12),
        "decompose": (1, None),
        "queries": (2, None),
    }


def test_chains_are_counted_exactly_and_their_questions_as_far_as_they_may_come(estimated: Any) -> None:
    found = estimated(CHAINED)
    assert {stage: calls(of) for stage, of in found.items()} == {
        "compose": (2, 6),  # with two repairs each
        "verify": (1, 36),
        "decompose": (1, None),  # a composed question has its hops
        "queries": (2, 6),
    }
    assert found["compose"].cost < found["compose"].most.cost


def test_a_sample_may_fall_on_any_of_them(estimated: Any) -> None:
    found = estimated(CHAINED, verify=VerifyConfig(llm="m", samples=1, sample_all=0, sample=2))
    assert calls(found["verify"])[1] == 24


def test_a_question_that_is_written_may_be_known_to_fail(estimated: Any) -> None:
    named = composed(question="Was Pesaro the birthplace of the composer of The Barber of Seville?")
    assert calls(estimated(Asked([], [], [named]))["verify"]) == (0, 0)


def test_what_is_asked_is_read_in_the_tables_that_are_there(tmp_path: Path) -> None:
    def write(table: Table[Any], rows: Sequence[Any]) -> Path:
        pq.write_table(table.to_arrow(rows), tmp_path / table.name)
        return tmp_path / table.name

    passages = [Paragraph(passage_id=each.id, title=each.title, text=each.text) for each in (OPERA, COMPOSER)]
    found: dict[Any, Path] = {LOADED: write(LOADED, [question(), question("twin", answerable=False)])}
    assert asked_of(found, tmp_path) == Asked([question()], [], [])
    found |= {CHAINS: write(CHAINS, [chain("p1", "p2")]), PARAGRAPHS: write(PARAGRAPHS, passages)}
    asked = asked_of(found, tmp_path)
    assert ([*asked.chains], asked.maybe) == ([bridge()], [bridge().longest()])
    found[COMPOSED] = write(COMPOSED, [composed(), composed("corpus__c2", status="faulty")])
    assert asked_of(found, tmp_path).maybe == [composed()]
    found = {QUESTIONS: write(QUESTIONS, [question("q2")])}
    assert asked_of(found, tmp_path) == Asked([question("q2")])

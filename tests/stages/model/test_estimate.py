"""What a dry run tells: exact numbers where they are known, and two bounds where replies decide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.llm.chat import Reply
from stepsearch_data.llm.money import tokens_in
from stepsearch_data.llm.replay import Replay
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.schemas.rows import Paragraph
from stepsearch_data.schemas.tables import CHAINS, COMPOSED, LOADED, PARAGRAPHS, QUESTIONS, Table
from stepsearch_data.search.documents import FILE
from stepsearch_data.stages.compose import ComposeConfig
from stepsearch_data.stages.decompose import DecomposeConfig
from stepsearch_data.stages.model.compose import compose, compose_request
from stepsearch_data.stages.model.estimate import Estimate, ToAsk, asked_of, estimate
from stepsearch_data.stages.model.prompts import load_prompt
from stepsearch_data.stages.queries import QueriesConfig
from stepsearch_data.stages.verify import VerifyConfig
from tests.builders import chain, composed, question
from tests.stages.composing.replies import COMPOSER, OPERA, bridge, comparison
from tests.stages.model.scripted import ScriptedModel, wait

CONFIGS: dict[str, Any] = {
    "compose": ComposeConfig(llm="m"),
    "verify": VerifyConfig(llm="m", samples=1, sample_all=0),
    "decompose": DecomposeConfig(llm="m"),
    "queries": QueriesConfig(llm="m"),
}
CHAINED = ToAsk([question()], [bridge(), comparison()], [bridge().longest(), comparison().longest()])


@pytest.fixture
def estimated(tmp_path: Path) -> Any:
    def run(asked: ToAsk, mode: Any = "online", **configs: Any) -> dict[str, Estimate]:
        settings = LlmSettings(replay=tmp_path / "replay", prices={"m": (1.0, 4.0)}, mode=mode)
        return {found.stage: found for found in estimate(asked, CONFIGS.keys(), {**CONFIGS, **configs}, {}, settings)}

    return run


def calls(found: Estimate) -> tuple[int, int | None]:
    return found.calls, found.most.calls if found.most else None


def test_questions_that_are_there_are_counted_exactly(estimated: Any) -> None:
    found = estimated(ToAsk([question()]))
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


def test_a_chain_whose_first_reply_was_paid_may_still_need_repairs(estimated: Any, tmp_path: Path) -> None:
    config = CONFIGS["compose"]
    request = compose_request({name: load_prompt(name) for name in config.asks}, bridge(), config)
    replay = Replay(tmp_path / "replay")
    replay.put(request.digest(LlmSettings().base_url.rstrip("/")), Reply("{}"))
    replay.close()
    found = estimated(CHAINED)["compose"]
    assert (found.replayed, calls(found)) == (1, (1, 5))
    assert found.most.cost > found.cost


def test_batches_halve_the_price_of_first_turns_only(estimated: Any) -> None:
    online, batch = (estimated(CHAINED, mode)["compose"] for mode in ("online", "batch"))
    once = estimated(CHAINED, compose=ComposeConfig(llm="m", repairs=0))["compose"]
    assert batch.cost == online.cost / 2
    assert online.most.cost - batch.most.cost == pytest.approx(once.most.cost / 2)


@pytest.mark.parametrize("max_tokens", [1_000, 4_000])
def test_replies_as_long_as_they_may_be_are_within_what_is_told_at_most(estimated: Any, max_tokens: int) -> None:
    config = ComposeConfig(llm="m", max_tokens=max_tokens)
    told = estimated(ToAsk([], [bridge()]), compose=config)["compose"].most
    wrong = {f"{number}{'x' * 400}": 0 for number in range(10)}  # each is complained of
    long = json.dumps(wrong).ljust(4 * max_tokens)[: 4 * max_tokens]
    model = ScriptedModel(long, long, long)
    with pytest.raises(RowRejected):
        wait(compose(model, {name: load_prompt(name) for name in config.asks}, bridge(), config))
    sent = sum(tokens_in(*(message.content for message in request.messages)) for request in model.requests)
    assert (told.calls, told.completion_tokens) == (3, 3 * max_tokens)
    assert sent <= told.prompt_tokens


def test_a_sample_may_fall_on_any_of_them(estimated: Any) -> None:
    found = estimated(CHAINED, verify=VerifyConfig(llm="m", samples=1, sample_all=0, sample=2))
    assert calls(found["verify"])[1] == 24


def test_a_question_that_is_written_may_be_known_to_fail(estimated: Any) -> None:
    named = composed(question="Was Pesaro the birthplace of the composer of The Barber of Seville?")
    assert calls(estimated(ToAsk([], [], [named]))["verify"]) == (0, 0)


def test_what_is_asked_is_read_in_the_tables_that_are_there(tmp_path: Path) -> None:
    def write(table: Table[Any], rows: Sequence[Any]) -> Path:
        pq.write_table(table.to_arrow(rows), tmp_path / table.name)
        return tmp_path / table.name

    passages = [Paragraph(passage_id=each.id, title=each.title, text=each.text) for each in (OPERA, COMPOSER)]

    def read(found: dict[Any, Path]) -> tuple[list[Any], list[Any], list[Any]]:
        asked = asked_of(found, tmp_path)
        first = [*asked.sure], [*asked.chains], [*asked.maybe]
        assert ([*asked.sure], [*asked.chains], [*asked.maybe]) == first  # each estimate reads them anew
        return first

    found: dict[Any, Path] = {LOADED: write(LOADED, [question(), question("twin", answerable=False)])}
    assert read(found) == ([question()], [], [])
    found |= {CHAINS: write(CHAINS, []), PARAGRAPHS: write(PARAGRAPHS, passages)}
    assert read(found) == ([question()], [], [])
    assert not (tmp_path / FILE).exists()
    found |= {CHAINS: write(CHAINS, [chain("p1", "p2")])}
    assert read(found) == ([question()], [bridge()], [bridge().longest()])
    found[COMPOSED] = write(COMPOSED, [composed(), composed("corpus__c2", status="faulty")])
    assert read(found) == ([question()], [], [composed()])
    found = {QUESTIONS: write(QUESTIONS, [question("q2")])}
    assert read(found) == ([question("q2")], [], [])

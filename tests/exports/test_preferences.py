"""Pairs and labelled steps: what is called bad was voted out, and found what it is said to have found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import datasets
import orjson
import polars as pl
import pytest

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.exports.reading import count_taken, taken
from stepsearch_data.pipeline.store import Store
from stepsearch_data.trajectory import read_trajectories
from tests.exports.conftest import Export, complete, path_of, rows_of, table
from tests.releases import build


def voted_out(store: Path) -> pl.DataFrame:
    """The queries that were voted out, of complete trajectories."""
    votes = table(store, "votes").filter(~pl.col("kept") & ~pl.col("waiting")).select("query_id")
    known = table(store, "queries").join(votes, on="query_id", how="semi", maintain_order="left")
    return known.join(complete(store), on="question_id", how="semi", maintain_order="left")


def test_a_pair_sets_the_rounds_query_against_one_that_was_voted_out(
    export: Export, sample_store: Path, texts: dict[str, tuple[str, str]], hub_cache: str
) -> None:
    file = str(path_of(export("trl-dpo")))
    pairs = datasets.load_dataset("parquet", data_files=file, cache_dir=hub_cache)["train"]
    expected = voted_out(sample_store).to_dicts()
    rounds = table(sample_store, "rounds")
    hits = table(sample_store, "hits").filter(engine=table(sample_store, "hits")["engine"][0])
    assert len(pairs) == len(expected) > 0
    for pair, query in zip(pairs, expected, strict=True):
        assert (pair["question_id"], pair["hop"]) == (query["question_id"], query["hop"])
        good = rounds.filter(question_id=pair["question_id"], round=pair["hop"]).row(0, named=True)
        assert good["kept"]
        assert f"<search> {good['query']} </search>" in pair["chosen"]
        assert pair["rejected"] == pair["chosen"].replace(
            f"<search> {good['query']} </search>", f"<search> {query['query']} </search>"
        )
        assert "<information>" not in pair["chosen"] + pair["rejected"]
        found = hits.filter(query_id=query["query_id"]).sort("rank")["passage_id"].drop_nulls().to_list()
        shown = [(document["title"], document["paragraph_text"]) for document in pair["rejected_documents"]]
        assert shown == [texts[passage_id] for passage_id in found[:3]]


def test_a_pairs_prompt_holds_the_rounds_before_it(export: Export) -> None:
    for pair in rows_of(export("trl-dpo")):
        rounds = pair["prompt"].partition("\nQuestion: ")[2]
        assert rounds.count("<information>") == rounds.count("<search>") == pair["hop"] - 1


def test_pairs_of_chats_share_their_tools(export: Export) -> None:
    for pair in rows_of(export("trl-dpo", "tools")):
        (chosen,), (rejected,) = pair["chosen"], pair["rejected"]
        assert chosen["content"] == rejected["content"]
        assert chosen["tool_calls"] != rejected["tool_calls"]
        assert pair["prompt"][-1]["role"] == ("tool" if pair["hop"] > 1 else "user")
        assert pair["tools"].startswith("[{")


def test_a_trajectory_is_steps_that_are_right(export: Export, sample_store: Path, hub_cache: str) -> None:
    file = str(path_of(export("trl-stepwise")))
    rows = datasets.load_dataset("parquet", data_files=file, cache_dir=hub_cache)["train"]
    assert rows.column_names == ["prompt", "completions", "labels"]
    right = [row for row in rows if all(row["labels"])]
    for row, whole in zip(right, complete(sample_store).to_dicts(), strict=True):
        assert row["prompt"] + "\n".join(row["completions"]) == row["prompt"] + whole["rollout"]
        assert len(row["labels"]) == len(row["completions"]) == whole["hops"] + 1


def test_a_search_that_was_voted_out_is_a_wrong_last_step(export: Export, sample_store: Path) -> None:
    wrong = [row for row in rows_of(export("trl-stepwise")) if not all(row["labels"])]
    for row, query in zip(wrong, voted_out(sample_store).to_dicts(), strict=True):
        assert row["labels"] == [True] * (query["hop"] - 1) + [False]
        assert f"<search> {query['query']} </search>\n<information> Doc 1" in row["completions"][-1]


def test_with_all_an_incomplete_trajectory_has_a_wrong_step(export: Export, sample_store: Path) -> None:
    rows = rows_of(export("trl-stepwise", everything=True))
    incomplete = table(sample_store, "trajectories").filter(~pl.col("complete"))
    assert len(incomplete) == 1
    whole = incomplete.row(0, named=True)
    (row,) = (row for row in rows if len(row["labels"]) == whole["hops"] + 1 and whole["question"] in row["prompt"])
    assert False in row["labels"][:-1]
    assert row["labels"][-1] is False


def test_the_formats_agree_on_what_a_prompt_is(export: Export) -> None:
    prompts = {row["prompt"] for row in rows_of(export("trl-stepwise", "paper"))}
    assert {row["prompt"] for row in rows_of(export("trl-sft", "paper"))} >= prompts


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with a teacher who does as the gold trajectories do, and then once says no."""
    folder = tmp_path_factory.mktemp("taught")
    store = build(folder / "store", "quality.validation=0")
    played = [{"id": each.question_id, "response": each.rollout} for each in read_trajectories(store) if each.complete]
    no = {**played[0], "response": "no"}
    (folder / "rollouts.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in [*played, no]))
    return build(
        folder / "store", "quality.validation=0", f'rollouts.policies=["mine={folder}"]', "pick.teacher=mine"
    ).root


def test_a_teachers_trajectories_are_exported_alone_or_with_the_gold_ones(export: Export, taught: Path) -> None:
    gold, own = (rows_of(export("trl-sft", store=taught, origin=origin)) for origin in ("gold", "teacher"))
    assert own == gold
    both = [{**row, "origin": "gold"} for row in gold] + [{**row, "origin": "teacher"} for row in own]
    assert rows_of(export("trl-sft", store=taught, origin="all")) == both
    (pair,) = rows_of(export("trl-dpo", store=taught, origin="teacher"))
    assert (pair["hop"], pair["rejected"]) == (1, "no")
    assert (pair["prompt"], pair["chosen"]) == (own[0]["prompt"], own[0]["completion"])
    calls = rows_of(export("verl-sft", "tools", store=taught, origin="teacher"))
    assert len(calls) == sum("<answer>" in row["completion"] for row in own)
    assert calls[0]["messages"][2]["tool_calls"]
    assert "<search>" not in str(calls)
    for row in rows_of(export("trl-stepwise", store=taught, origin="teacher")):
        assert row["labels"][-1] is True


@pytest.mark.parametrize("name", ["verl-sft", "trl-dpo", "trl-stepwise", "llama-factory", "sharegpt"])
def test_every_format_of_searches_says_whose_a_row_is(export: Export, taught: Path, name: str) -> None:
    rows = rows_of(export(name, store=taught, origin="all"))
    assert Counter(row.pop("origin") for row in rows).keys() == {"gold", "teacher"}
    apart = [row for origin in ("gold", "teacher") for row in rows_of(export(name, store=taught, origin=origin))]
    assert rows == apart


def test_a_search_that_shows_nothing_new_makes_no_right_answer_wrong(export: Export, twice: Path) -> None:
    row = rows_of(export("trl-stepwise", store=twice, origin="teacher"))[0]
    assert row["labels"] == [True, False, *[True] * (len(row["labels"]) - 2)]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with two policies, one of which repeats its first search, and scores of a third in a file."""
    folder = tmp_path_factory.mktemp("twice")
    store = build(folder / "store", "quality.validation=0")
    whole = next(each for each in read_trajectories(store) if each.complete)
    first, end, rest = whole.rollout.partition("</information>")
    (folder / "mine.jsonl").write_bytes(
        orjson.dumps({"id": whole.question_id, "response": f"{first}{end}\n{first}{end}{rest}"})
    )
    (folder / "other.jsonl").write_bytes(orjson.dumps({"id": whole.question_id, "response": "no"}))
    (folder / "scores.jsonl").write_bytes(orjson.dumps({"question_id": whole.question_id, "score": 0.5}))
    policies = orjson.dumps([f"{name}={folder / name}.jsonl" for name in ("mine", "other")]).decode()
    kept = (f"rollouts.policies={policies}", f"quality.rollouts={folder / 'scores.jsonl'}", "pick.teacher=mine")
    return build(folder / "store", "quality.validation=0", *kept).root


def test_only_what_needs_pass_rates_asks_whose_they_are(export: Export, twice: Path) -> None:
    for origin in ("gold", "teacher"):
        assert rows_of(export("trl-sft", store=twice, origin=origin))
        with pytest.raises(ConfigError, match="the pass rates of this store are those of a file"):
            export("trl-sft", store=twice, origin=origin, pass_rate="0-1")
    with pytest.raises(ConfigError, match="the pass rates of this store are those of a file"):
        export("curriculum", store=twice)


def test_progress_counts_what_was_taken(taught: Path, twice: Path) -> None:
    for store in map(Store, (taught, twice)):
        found = list(taken(store, store.manifest(), with_passes=False))
        assert count_taken(store, store.manifest()) == len(found) > 0


def test_nothing_of_a_teacher_says_why(export: Export, twice: Path) -> None:
    with pytest.raises(StoreError, match="of no rollout of a teacher"):
        export("trl-dpo", store=twice, origin="teacher")


def test_what_a_teacher_cannot_give(export: Export, taught: Path) -> None:
    with pytest.raises(ConfigError, match="verl holds no searches"):
        export("verl", origin="teacher")
    with pytest.raises(ConfigError, match="corpus holds no searches"):
        export("corpus", origin="all")
    with pytest.raises(ConfigError, match="pairs are written in tags"):
        export("trl-dpo", "tools", store=taught, origin="teacher")
    with pytest.raises(ConfigError, match="those that were taken"):
        export("trl-sft", store=taught, origin="teacher", everything=True)
    with pytest.raises(StoreError, match="no trajectories of a teacher"):
        export("trl-sft", origin="teacher")

"""Builds on which several engines vote, with real servers, real failures and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.stages import STAGES
from tests.conftest import Run
from tests.fake import Fault
from tests.search_servers import KEY, Page, SearchServer, error
from tests.serving import Server
from tests.tree import tree

SIX = ("--limit", "3", "--quiet")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "SERPER_API_KEY": KEY}


def sql(cli: Run, store: Path, query: str) -> list[dict[str, Any]]:
    found = cli("sql", query, "--store", store, "-f", "json")
    assert found.returncode == 0, found.stderr
    return list(json.loads(found.stdout))


def say(_query: str) -> list[Page]:
    return [Page("Nothing to do with it", "A page about gardening, pots, soil, seeds, water, sunlight and patience.")]


@pytest.fixture
def server(tmp_path: Path, sample_store: Path) -> Iterator[Server]:
    with Server("--store", sample_store) as running:
        yield running


@pytest.mark.long
def test_three_engines_vote_and_our_own_server_is_one_of_them(
    server: Server, tmp_path: Path, cli: Run, sample_store: Path
) -> None:
    """The server searches the very passages of the build, so its documents are known by their title and text."""
    store = tmp_path / "store"
    engines = ["-e", "bm25", "-e", "chargram", "-e", f"http={server.url}"]
    built = cli("build", "--store", store, *engines, "--set", f"llm.replay={tmp_path / 'replay.sqlite'}")
    assert built.returncode == 0, built.stderr
    assert "M = 1" not in built.stderr
    votes = sql(cli, store, "SELECT DISTINCT asked, engines, needed FROM votes")
    assert votes == [{"asked": 3, "engines": 3, "needed": 2}]
    same = sql(
        cli,
        store,
        "SELECT count(*) AS n FROM hits a JOIN hits b USING (query_id, rank)"
        " WHERE a.engine = 'bm25' AND b.engine = 'http' AND a.passage_id IS DISTINCT FROM b.passage_id",
    )
    assert same == [{"n": 0}]
    timed = sql(cli, store, "SELECT engine, count(latency) > 0 AS timed FROM hits GROUP BY engine ORDER BY engine")
    assert [row["timed"] for row in timed] == [False, False, True]
    audited = json.loads(cli("audit", "--store", store, "--json").stdout)
    assert list(audited["by_engine"]) == ["bm25", "chargram", "http"]
    assert audited["by_engine"]["bm25"]["valid"] == audited["by_engine"]["http"]["valid"] > 0.9
    assert all(numbers["leaks"] == 0 for numbers in audited["by_source"].values())
    listed = [stage for stage in STAGES if not stage.optional]
    assert cli("explain", "--store", store, *engines).stdout.count("current") == len(listed)
    assert cli("explain", "--store", store).stdout.count("current") == len(listed)  # engines are remembered
    one = cli("explain", "--store", store, "-e", "bm25").stdout
    assert "engines.chargram.kind: chargram → absent" in one


def test_the_order_of_the_engines_counts(tmp_path: Path, cli: Run) -> None:
    """A round shows the documents of the first engine that finds gold."""
    store = tmp_path / "store"
    assert cli("build", "--store", store, *SIX, "-e", "bm25", "-e", "chargram").returncode == 0
    changed = cli("explain", "--store", store, "--limit", "3", "-e", "chargram", "-e", "bm25").stdout
    assert "engines.use: ['bm25', 'chargram'] → ['chargram', 'bm25']" in changed


def test_a_rule_that_no_query_can_meet_is_refused(tmp_path: Path, cli: Run) -> None:
    refused = cli("build", "--store", tmp_path / "store", "--set", "filter.rule=2")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "filter.rule is 2, but 1 engines vote" in refused.stderr


def test_with_one_engine_the_build_says_that_the_vote_is_its_word(tmp_path: Path, cli: Run) -> None:
    built = cli("build", "--store", tmp_path / "store", "--limit", "2")
    assert "note: bm25 alone decides which queries are kept" in built.stderr


def test_a_second_build_replays_what_was_paid_for_to_the_byte(
    tmp_path: Path, cli: Run, environment: dict[str, str]
) -> None:
    with SearchServer("serper", say) as serper:
        engines = ["-e", "bm25", "-e", f"serper={serper.url}", "--set", "engines.serper.rps=1000"]
        for name in ("one", "two"):
            built = cli("build", "--store", tmp_path / name, *SIX, *engines, env=environment)
            assert built.returncode == 0, built.stderr
        asked = list(serper.queries)
    assert len(asked) == len(set(asked)) > 10
    assert tree(tmp_path / "one", "log") == tree(tmp_path / "two", "log")
    calls = "SELECT engine, sum(queries)::INT AS n FROM search_calls WHERE engine = 'serper' AND cached GROUP BY engine"
    assert sql(cli, tmp_path / "two", calls) == [{"engine": "serper", "n": len(asked)}]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.long
def test_what_failed_waits_and_is_asked_again_alone(tmp_path: Path, cli: Run, environment: dict[str, str]) -> None:
    """One query in eight fails: below the quorum it waits, is set aside with the reason, and comes through later."""
    store = tmp_path / "store"
    ill: list[str] = []

    def answer(query: str) -> list[Page] | Fault:
        if ill and query in ill:
            return error("serper", 400, "unlucky")
        return say(query)

    with SearchServer("serper", answer) as serper:
        engines = ["-e", f"serper={serper.url}", "--set", "engines.serper.rps=1000"]
        first = cli("build", "--store", store, "--to", "queries", *SIX, env=environment)
        assert first.returncode == 0, first.stderr
        texts = [row["query"] for row in sql(cli, store, "SELECT DISTINCT query FROM queries ORDER BY query")]
        ill += texts[::8]
        built = cli("build", "--store", store, *SIX, *engines, env=environment)
        assert built.returncode == 3, built.stderr
        waiting = sql(cli, store, "SELECT DISTINCT query FROM queries WHERE waiting ORDER BY query")
        assert [row["query"] for row in waiting] == ill
        assert sql(cli, store, "SELECT count(*) AS n FROM queries WHERE waiting AND kept") == [{"n": 0}]
        reasons = sql(cli, store, "SELECT DISTINCT stage, source, reason FROM rejects")
        assert [(row["stage"], row["source"]) for row in reasons] == [("retrieve", "serper")]
        assert "unlucky" in reasons[0]["reason"]
        assert f"{len(waiting)} queries wait" in cli("audit", "--store", store).stdout
        recovered, sent = list(ill), len(serper.queries)
        ill.clear()
        again = cli("retry-failed", "--store", store, *engines, "--quiet", env=environment)
        assert again.returncode == 0, again.stderr
        assert sorted(serper.queries[sent:]) == recovered
    assert sql(cli, store, "SELECT count(*) AS n FROM queries WHERE waiting") == [{"n": 0}]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["http", "serper"])
def test_an_engine_that_is_down_stops_the_build_and_loses_nothing(
    kind: str, tmp_path: Path, cli: Run, environment: dict[str, str]
) -> None:
    store = tmp_path / "store"
    gone = ["-e", "bm25", "-e", f"{kind}=http://127.0.0.1:9/", "--set", f"engines.{kind}.patience=0.1"]
    gone += ["--set", f"engines.{kind}.max_attempts=1"]
    built = cli("build", "--store", store, *SIX, *gone, env=environment)
    assert built.returncode == 1
    assert f"rows of {kind} were rejected" in built.stderr
    assert "Traceback" not in built.stderr
    allowed = cli("build", "--store", store, *SIX, *gone, "--set", "run.max_reject_share=1", env=environment)
    assert allowed.returncode == 3, allowed.stderr
    assert sql(cli, store, "SELECT DISTINCT asked, engines, waiting FROM votes") == [
        {"asked": 2, "engines": 1, "waiting": False}
    ]


def test_a_wrong_key_stops_at_once_and_is_not_repeated(tmp_path: Path, cli: Run) -> None:
    with SearchServer("serper", say) as serper:
        engines = ["-e", "bm25", "-e", f"serper={serper.url}"]
        wrong = "n0t-the-k3y-at-all"
        built = cli("build", "--store", tmp_path / "s", *SIX, *engines, env={"SERPER_API_KEY": wrong})
        assert (built.returncode, len(serper.requests)) <= (1, 8)
    assert built.returncode == 1
    assert "SERPER_API_KEY" in built.stderr
    assert wrong not in built.stderr


def test_a_budget_ends_the_build_and_the_next_one_goes_on(
    tmp_path: Path, cli: Run, environment: dict[str, str]
) -> None:
    store = tmp_path / "store"
    with SearchServer("serper", say) as serper:
        engines = ["-e", f"serper={serper.url}", "--set", "engines.serper.rps=1000"]
        stopped = cli(
            "build", "--store", store, *SIX, *engines, "--set", "engines.serper.max_requests=7", env=environment
        )
        assert (stopped.returncode, len(serper.requests)) == (4, 7), stopped.stderr
        assert "max_requests" in stopped.stderr
        done = cli(
            "build", "--store", store, *SIX, *engines, "--set", "engines.serper.max_requests=1000", env=environment
        )
        assert done.returncode == 0, done.stderr
        assert len(serper.queries) == len(set(serper.queries))

"""The real rows by a model: what a second, cached build writes is the same, byte for byte."""

from __future__ import annotations

from pathlib import Path

from stepsearch_data.pipeline.store import Store
from stepsearch_data.sql import query
from tests.conftest import run_cli
from tests.llm_server import LlmServer
from tests.oracle import Oracle
from tests.tree import tree


def test_a_cached_build_of_the_real_rows_equals_the_paid_one(tmp_path: Path, real_sources: list[str]) -> None:
    known, stores, sent = tmp_path / "known", [tmp_path / "paid", tmp_path / "cached"], []
    assert run_cli("build", "--store", known, *real_sources, "--to", "queries", "--quiet").returncode == 0
    with LlmServer(Oracle(known)) as server:
        env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        for store in stores:
            done = run_cli("build", "--store", store, *real_sources, "--llm", "mock", "--quiet", env=env)
            assert done.returncode == 3, done.stderr
            sent.append(len(server.requests))
    assert sent[0] == sent[1] > 1_000
    paid, cached = (tree(store, "log") for store in stores)
    assert paid == cached
    # The oracle only knows the rules' hops: where their last one is not the answer, the row is rejected.
    counts = "SELECT (SELECT count(*) FROM trajectories) AS whole, (SELECT count(*) FROM rejects) AS rejected"
    with query(Store.open(stores[1]), counts) as reader:
        (found,) = reader.read_all().to_pylist()
    assert found["whole"] + found["rejected"] == 338
    assert found["whole"] >= 300

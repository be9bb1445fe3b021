"""What tests of exports share: an export of the sample, what its store holds, and stores with quality gates."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import orjson
import polars as pl
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.intervals import Passes
from stepsearch_data.core.progress import Meter
from stepsearch_data.exports.export import Origin, Written, find_format, parse_rates
from stepsearch_data.exports.export import export as write
from stepsearch_data.exports.reading import Played
from stepsearch_data.pipeline.marks import Change, write_marks
from stepsearch_data.pipeline.store import Store
from stepsearch_data.rewards import parse
from stepsearch_data.schemas.rows import Quality, RolloutTurn
from stepsearch_data.schemas.tables import QUALITY, REJECTS
from stepsearch_data.templates.files import load_template
from tests.builders import question, rollout
from tests.conftest import run_cli

NOTE = "Hop 2 <b>is</b> ambiguous:\n </Text> \u2028"
Export = Callable[..., Written]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def sample_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample without its last stages: no gate has judged it, so all that is complete is exported, in one split.

    Two trajectories are marked. A policy plays the questions of all but the last: the first one right and wrong, the
    others right.
    """
    store = tmp_path_factory.mktemp("ungated") / "store"
    build = ("build", "--store", store, "--quiet", "--to", "trajectories")
    built = run_cli(*build)
    assert built.returncode == 0, built.stderr
    whole = table(store, "trajectories").filter("complete").select("question_id", "rollout").rows()
    played = [{"id": whole[0][0], "response": "no"}, *({"id": name, "response": text} for name, text in whole[:-1])]
    (store.parent / "mine.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in played))
    kept = run_cli(*build, "--set", f'rollouts.policies=["mine={store.parent / "mine.jsonl"}"]')
    assert kept.returncode == 0, kept.stderr
    first, second = table(store, "trajectories")["question_id"][:2]
    write_marks(Store(store), {first: Change(mark="bad", note=NOTE), second: Change(mark="good")})
    return store


@pytest.fixture
def export(sample_store: Path, tmp_path: Path) -> Export:
    """Exports the sample, or another store, into a folder named by format and template."""

    def run(
        form: str,
        template: str = "musique",
        *,
        store: Path = sample_store,
        split: str | None = None,
        everything: bool = False,
        pass_rate: str | None = None,
        origin: Origin = "gold",
    ) -> Written:
        folder = tmp_path / f"{form}-{Path(template).stem}"
        meter = Meter(None, "export")
        chosen = find_format(form)
        return write(
            Store(store),
            chosen,
            load_template(template),
            folder,
            meter,
            split=split,
            everything=everything,
            wanted=parse_rates(pass_rate) if pass_rate else None,
            origin=origin,
        )

    return run


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cache folder for `datasets`, which would write into the home directory."""
    return str(tmp_path / "datasets")


def path_of(written: Written, split: str = "train") -> Path:
    return next(path for path in written.rows if path.stem == split)


def rows_of(written: Written, split: str = "train") -> Rows:
    """The rows of a split as plain Python, nulls left out as trainers do."""
    path = path_of(written, split)
    if path.is_dir():
        files = (map(orjson.loads, file.read_bytes().splitlines()) for file in sorted(path.rglob("*.jsonl")))
        return [{"session": header, "messages": messages} for header, *messages in files]
    if path.suffix == ".jsonl":
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]
    if path.suffix == ".json":
        rows: Rows = orjson.loads(path.read_bytes())
        return rows
    return [without_nulls(row) for row in pl.read_parquet(path).to_dicts()]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def table(store: Path, name: str) -> pl.DataFrame:
    """A table of a store."""
    output = Store(store).manifest().output(name)
    assert output is not None
    return pl.read_parquet(store / output.path)


def complete(store: Path) -> pl.DataFrame:
    """The trajectories that are exported by default."""
    return table(store, "trajectories").filter("complete")


@pytest.fixture(scope="session")
def texts(sample_store: Path) -> dict[str, tuple[str, str]]:
    """Title and text of the sample's passages, by id."""
    return {
        row[0]: (row[1], row[2]) for row in table(sample_store, "passages").select("passage_id", "title", "text").rows()
    }


def with_quality(
    store: Path, copy: Path, judged: Iterable[tuple[str, str, bool]], groups: Mapping[str, str] | None = None
) -> Path:
    """A copy of a store with a table `quality`: question id, split, passed. Each is its own group, but for `groups`."""
    shutil.copytree(store, copy)
    shared: dict[str, Any] = {"source": "musique", "flags": [], "reasons": [], "duplicate_of": None, "pass_rate": None}
    shared |= {"difficulty": "easy", "difficulty_score": 0.0}
    rows = [
        {"question_id": key, "split": split, "split_group": (groups or {}).get(key, key), "passed": passed}
        for key, split, passed in judged
    ]
    made = Store(copy)
    fingerprint = {"version": 1, "config": {}, "inputs": {}, "outputs": {"quality": "made up"}}
    with made.locked(), made.staging() as folder:
        pq.write_table(QUALITY.to_arrow([Quality(**row, **shared) for row in rows]), folder / "quality.parquet")
        pq.write_table(REJECTS.schema.empty_table(), folder / "rejects.parquet")
        made.commit("quality", "0123456789ab", fingerprint, folder, {"quality": len(rows), "rejects": 0})
    return copy


def played(response: str, places: list[list[int]] | None = None) -> Played:
    """A rollout of this text, whose searches show nothing of value."""
    one = rollout("", "p", gold=0, response=response, observations=places)
    found = parse(response, observations=one.places).rounds
    turns = tuple(turn(at, each.query.text) for at, each in enumerate(found, start=1))
    return Played("train", question("", question="Who?", answer="Rossini"), one, turns, Passes(0, 1))


def turn(number: int, query: str) -> RolloutTurn:
    return RolloutTurn(
        question_id="",
        policy="p",
        sample=1,
        turn=number,
        query=query,
        titles=["T"],
        gold_passage_ids=[],
        new_gold=0,
        repeated=False,
        information_gain=0.25,
        redundancy_penalty=0.5,
        step_reward=-0.25,
    )


_TAGS = ("think", "plan", "search", "information", "observation", "answer", "warning")
_PIECES = [f"<{end}{tag}>" for tag in _TAGS for end in ("", "/")] + ["<search>a</search>"] * 3
_PIECES += ["\n", " ", "Rossini", "Doc 1<## Title: T ##> text", "\x85\u2028\u2029", '"\\', "\0", "🙂"]


def soup(rng: Random) -> tuple[str, list[list[int]] | None]:
    """A text of tags in any order, and parts of it that the environment may have written, or None."""
    text = "".join(rng.choice(_PIECES) for _ in range(rng.randrange(40)))
    ends = sorted(rng.sample(range(len(text) + 1), min(4, len(text) // 2 * 2)))
    return text, [list(pair) for pair in zip(ends[::2], ends[1::2], strict=True)] if rng.random() < 0.7 else None

"""mine: only documents are mined, whatever their order; real rows give the gold pairs that the docs promise."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stepsearch_data.schemas.rows import Origin, Paragraph
from stepsearch_data.sources.record import paragraph
from stepsearch_data.stages import mine
from stepsearch_data.stages.mine import MineConfig
from tests.conftest import Run
from tests.stages.conftest import RunStage, Tables

TOWN = "is a town on the river"
WORLD = [
    ("Ada Ferro", "Ada Ferro (born 1901) was a painter of Ostwick."),
    ("Bo Lund", "Bo Lund (born 1899) was a painter of Marl."),
    ("Ostwick", f"Ostwick {TOWN} Lenn."),
    ("Marl", f"Marl {TOWN} Sour."),
    ("Lenn", "The Lenn is a river, 41 km long, that begins at Kest Peak."),
    ("Sour", "The Sour is a river, 7 km long."),
    ("Kest Peak", "Kest Peak is a mountain 1,200 m high."),
]


def passages(world: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The stage's inputs for these titles and texts."""
    rows = [paragraph(title, text) for title, text in world]
    origins = [
        Origin(passage_id=row.passage_id, source="corpus", position=number, document="", part=1)
        for number, row in enumerate(rows, start=1)
    ]
    return {"paragraphs": rows, "origins": origins}


def counts(mined: Tables) -> dict[str, int]:
    return {f"{row.step} {row.part}".strip(): row.count for row in mined["mining"] if row.count}


def titles(mined: Tables, inputs: dict[str, list[Paragraph]]) -> list[list[str]]:
    of = {row.passage_id: row.title for row in inputs["paragraphs"]}
    return sorted([of[passage_id] for passage_id in chain.passage_ids] for chain in mined["chains"])


def test_a_small_world_is_mined(run_stage: RunStage) -> None:
    inputs = passages(WORLD)
    mined = run_stage(mine.STAGE, MineConfig(per_title=9, per_passage=9), **inputs)
    assert titles(mined, inputs) == sorted(
        [
            ["Ada Ferro", "Ostwick"],
            ["Ada Ferro", "Ostwick", "Lenn"],
            ["Ada Ferro", "Ostwick", "Lenn", "Kest Peak"],
            ["Bo Lund", "Marl"],
            ["Bo Lund", "Marl", "Sour"],
            ["Lenn", "Kest Peak"],
            ["Marl", "Sour"],
            ["Ostwick", "Lenn"],
            ["Ostwick", "Lenn", "Kest Peak"],
            *(pair for pair in titles(mined, inputs) if set(pair) in ({"Ada Ferro", "Bo Lund"}, {"Lenn", "Sour"})),
        ]
    )
    assert {tuple(chain.mentions) for chain in mined["chains"] if chain.kind == "comparison"} == {
        ("person", "born"),
        ("river", "length"),
    }
    assert counts(mined) == {
        "passages": 7,
        "titles": 7,
        "left out own title": 7,
        "links": 5,
        "chains 2 hops": 5,
        "chains 3 hops": 3,
        "chains 4 hops": 1,
        "chains comparison": 2,
        "drawn 2 hops": 5,
        "drawn 3 hops": 3,
        "drawn 4 hops": 1,
        "drawn comparison": 2,
    }


def test_only_passages_of_documents_are_mined(run_stage: RunStage) -> None:
    inputs = passages(WORLD)
    mined = run_stage(mine.STAGE, paragraphs=inputs["paragraphs"], origins=inputs["origins"][:3])
    assert counts(mined)["passages"] == 3
    assert [link.title for link in mined["links"]] == ["Ostwick"]


def test_the_order_of_documents_changes_nothing(run_stage: RunStage) -> None:
    world = [(f"Thing {n}", f"Thing {n} is a {1900 + n} film, as Thing {(n * 7) % 60} was.") for n in range(60)]
    mined = run_stage(mine.STAGE, **passages(world))
    assert len(mined["chains"]) > 20
    for seed in range(3):
        again = run_stage(mine.STAGE, **passages(random.Random(seed).sample(world, len(world))))
        assert [again[name] for name in ("links", "chains", "mining")] == [
            mined[name] for name in ("links", "chains", "mining")
        ]


@pytest.mark.parametrize("world", [WORLD[:1], [("", "No title.")], [("Ada", "Alone."), ("Bo", "Alone, too.")]])
def test_a_corpus_without_links_has_no_chains(run_stage: RunStage, world: list[tuple[str, str]]) -> None:
    mined = run_stage(mine.STAGE, **passages(world))
    assert mined["links"] == mined["chains"] == []
    assert counts(mined)["passages"] == len(world)


def test_settings_choose_what_is_drawn(run_stage: RunStage) -> None:
    config = MineConfig(hops=(3,), comparisons=False, questions=1)
    (chain,) = run_stage(mine.STAGE, config, **passages(WORLD))["chains"]
    assert (chain.kind, chain.hops) == ("bridge", 3)


def write(path: Path, world: Iterable[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"title": title, "text": text}) + "\n" for title, text in world))
    return path


@pytest.mark.long
def test_a_build_mines_documents_with_the_same_bytes_on_any_number_of_cores(tmp_path: Path, cli: Run) -> None:
    world = [
        (f"Thing {n}", f"Thing {n} was made for Thing {n * 7 % 1_999} and Thing {n * 3 % 1_999}.") for n in range(2_000)
    ]
    source = write(tmp_path / "own.jsonl", world)
    for workers in (1, 8):
        store = tmp_path / f"store-{workers}"
        built = cli(
            "build", "--to", "mine", "--store", store, "--source", f"corpus={source}", "--workers", str(workers)
        )
        assert built.returncode == 0, built.stderr
        assert {line.split()[0] for line in built.stderr.splitlines()} == {"load", "mine"}
    one, eight = (sorted((tmp_path / f"store-{workers}/stages").rglob("*.parquet")) for workers in (1, 8))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in eight]
    shown = cli("sql", "SELECT count(*) AS n FROM chains", "--store", tmp_path / "store-1", "--format", "csv")
    assert shown.stdout.split()[-1] == "1000"


def test_a_store_without_documents_has_nothing_mined(sample_store: Path) -> None:
    for name in ("origins", "links", "chains", "mining"):
        (path,) = sample_store.glob(f"stages/*/{name}.parquet")
        assert len(pl.read_parquet(path)) == 0


# Of the 160, 86 and 81 pairs of gold paragraphs where one hop needs the answer of another, those where one has a link
# to the title of the other.
FLOORS = {"musique": 42, "2wiki": 80, "hotpotqa": 64}
MOST_LINKS = 1_700


def test_real_rows_have_links_between_their_gold_paragraphs(real_sources: list[str], tmp_path: Path, cli: Run) -> None:
    asked, store = tmp_path / "asked", tmp_path / "store"
    assert cli("build", "--quiet", "--to", "decompose", "--store", asked, *real_sources).returncode == 0
    paragraphs = pl.read_parquet(next(asked.glob("stages/load-*/paragraphs.parquet")))
    source = write(tmp_path / "own.jsonl", paragraphs.select("title", "text").iter_rows())
    whole = ("--set", "load.passage_chars=100000")
    built = cli("build", "--quiet", "--to", "mine", "--store", store, "--source", f"corpus={source}", *whole)
    assert built.returncode == 0, built.stderr
    links = pl.read_parquet(next(store.glob("stages/mine-*/links.parquet")))
    linked = set(links.select("passage_id", "title").iter_rows())
    title = dict(paragraphs.select("passage_id", "title").iter_rows())
    found = dict.fromkeys(FLOORS, 0)
    for name, one, other in gold_pairs(asked):
        found[name] += (one, title[other]) in linked or (other, title[one]) in linked
    assert len(links) <= MOST_LINKS
    assert all(found[name] >= floor for name, floor in FLOORS.items()), found


def gold_pairs(store: Path) -> list[tuple[str, str, str]]:
    """The gold passages of each hop and of each hop that it depends on, with their source."""
    hops = pl.read_parquet(next(store.glob("stages/decompose-*/sub_questions.parquet")))
    gold = hops.select("source", "question_id", "hop", "depends_on", passage_id=pl.col("gold_passage_ids").list.first())
    pairs = gold.explode("depends_on").join(
        gold.select("question_id", depends_on="hop", first="passage_id"), on=["question_id", "depends_on"]
    )
    pairs = pairs.filter(pl.col("first") != pl.col("passage_id"))
    return pairs.select("source", "first", "passage_id").rows()

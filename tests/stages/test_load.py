"""load: a bad row lands in `rejects` with its position and the reason, and the good rows go on."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import SourceError
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.context import StageContext, TooManyRejects
from stepsearch_data.sources.source import parse_source
from stepsearch_data.stages.load import STAGE, LoadConfig
from tests import rows
from tests.conftest import Run, run_cli
from tests.rows import Row, hotpotqa, jsonl, line, musique, stepsearch, two_wiki, with_paragraph, with_step, without

MAKE = {"musique": musique, "hotpotqa": hotpotqa, "2wiki": two_wiki, "stepsearch": stepsearch, "jsonl": jsonl}
BETWEEN = 5  # good rows after each bad one
LONE_SURROGATE = "\ud800"
ABSENT = "in none of the paragraphs"


@dataclass(frozen=True)
class Bad:
    kind: str
    name: str
    row: Row | bytes
    reason: str

    @property
    def data(self) -> bytes:
        """The row with every character beyond ASCII escaped, as lone surrogates must be."""
        return self.row if isinstance(self.row, bytes) else json.dumps(self.row).encode()

    @property
    def id(self) -> str:
        return f"{self.kind} {self.name}"


MUSIQUE = [
    ("no decomposition", without(musique("bad"), "question_decomposition"), "question_decomposition: Field required"),
    ("truncated", line(musique("bad"))[:200], "Invalid JSON"),
    ("latin-1", line(musique("bad", answer="Pésaro")).decode().encode("latin-1"), "(?i)invalid.*(unicode|utf-8)"),
    ("utf-16", line(musique("bad")).decode().encode("utf-16-le"), "Invalid JSON"),
    ("a list", b"[1, 2]", "valid dictionary|an object"),
    ("a text", b'"bad"', "valid dictionary|an object"),
    ("null", b"null", "valid dictionary|an object"),
    ("empty object", b"{}", "id: Field required"),
    ("not a number", b'{"id": NaN}', "Invalid JSON|id:"),
    ("bottomless", b'{"id": ' + b"[" * 100_000, "Invalid JSON"),
    ("no id", without(musique("bad"), "id"), "id: Field required"),
    ("no question", without(musique("bad"), "question"), "question: Field required"),
    ("no answer", without(musique("bad"), "answer"), "answer: Field required"),
    ("no paragraphs", without(musique("bad"), "paragraphs"), "paragraphs: Field required"),
    ("id is a number", musique("bad", id=5), "id: .*valid string"),
    ("id is blank", musique(" "), "question_id is empty"),
    ("question is blank", musique("bad", question=" "), "question is empty"),
    ("question is null", musique("bad", question=None), "question: .*valid string"),
    ("answer is a list", musique("bad", answer=["Pesaro"]), "answer: .*valid string"),
    ("answer is empty", musique("bad", answer=""), "answer is empty"),
    ("aliases are a number", musique("bad", answer_aliases=5), "answer_aliases: .*valid array"),
    ("paragraphs are a number", musique("bad", paragraphs=5), "paragraphs: .*valid array"),
    ("paragraph is a text", musique("bad", paragraphs=["a"]), "paragraphs.0: "),
    ("idx is a text", with_paragraph("bad", 1, idx="one"), "paragraphs.1.idx: .*valid integer"),
    ("idx occurs twice", with_paragraph("bad", 1, idx=0), "an idx occurs twice"),
    ("title is null", with_paragraph("bad", 0, title=None), "paragraphs.0.title: .*valid string"),
    ("empty paragraph", with_paragraph("bad", 2, paragraph_text=""), "paragraph 2 is empty"),
    ("blank paragraph", with_paragraph("bad", 2, paragraph_text=" \n"), "paragraph 2 is empty"),
    ("long paragraph", with_paragraph("bad", 1, paragraph_text="Pesaro " * 150_000), "paragraph 1 is longer than"),
    ("no steps", musique("bad", question_decomposition=[]), "question_decomposition is empty"),
    ("support is null", with_step("bad", 1, paragraph_support_idx=None), "step 2: paragraph_support_idx is null"),
    ("support is out of range", with_step("bad", 1, paragraph_support_idx=99), "step 2: .* 99 points to no paragraph"),
    ("support is negative", with_step("bad", 0, paragraph_support_idx=-1), "step 1: .* -1 points to no paragraph"),
    ("#3 of two steps", with_step("bad", 1, question="Where was #3 born?"), "step 2: #3 points to no earlier step"),
    ("#2 in step 1", with_step("bad", 0, question="#2 >> composer"), "step 1: #2 points to no earlier step"),
    ("#2 in step 2", with_step("bad", 1, question="Where was #2 born?"), "step 2: #2 points to no earlier step"),
    ("#0", with_step("bad", 1, question="Where was #0 born?"), "step 2: #0 points to no earlier step"),
    ("# of many digits", with_step("bad", 1, question=f"#{'1' * 9_999}"), "step 2: #1+ points to no earlier step"),
    ("answer nowhere", musique("bad", answer="Rome"), ABSENT),
    ("answer of punctuation", musique("bad", answer="?!"), ABSENT),
    ("duplicate id", musique("good musique 0"), "duplicate id good musique 0"),
    ("surrogate in question", musique("bad", question=f"Where{LONE_SURROGATE}?"), "hex escape|surrogate"),
    (
        "surrogate in paragraph",
        with_paragraph("bad", 1, paragraph_text=f"Pesaro{LONE_SURROGATE}"),
        "hex escape|surrogate",
    ),
    ("NUL in id", musique("b\0ad"), "question_id holds a NUL byte"),
    ("NUL in answer", musique("bad", answer="Pe\0saro"), "answer holds a NUL byte"),
    ("NUL in alias", musique("bad", answer_aliases=["a\0"]), "answer_aliases holds a NUL byte"),
    ("NUL in title", with_paragraph("bad", 0, title="a\0"), "paragraph 0 holds a NUL byte"),
    ("NUL in step", with_step("bad", 0, answer="a\0"), "decomposition holds a NUL byte"),
    ("bare NUL", line(musique("bad")).replace(b"Pesaro", b"Pe\0saro"), "Invalid JSON"),
]
HOTPOT_LIKE = [
    ("no facts", without(hotpotqa("bad"), "supporting_facts"), "supporting_facts: Field required"),
    ("no id", without(hotpotqa("bad"), "_id"), "_id: Field required"),
    ("no type", without(hotpotqa("bad"), "type"), "type: Field required"),
    ("facts are empty", hotpotqa("bad", supporting_facts=[]), "supporting_facts is empty"),
    ("fact of no paragraph", hotpotqa("bad", supporting_facts=[["Rome", 0]]), "no paragraph is called 'Rome'"),
    ("fact of no sentence", hotpotqa("bad", supporting_facts=[["Bologna", 1]]), "'Bologna' has no sentence 1"),
    ("fact before the first", hotpotqa("bad", supporting_facts=[["Bologna", -1]]), "'Bologna' has no sentence -1"),
    ("facts are a number", hotpotqa("bad", supporting_facts=5), "supporting_facts: .*valid array"),
    ("context is a number", hotpotqa("bad", context=5), "context: .*valid array"),
    ("context is null", hotpotqa("bad", context=None), "context: .*valid array"),
    ("context of numbers", hotpotqa("bad", context={"title": 1, "sentences": 2}), "context: .*valid array"),
    ("no sentences", hotpotqa("bad", context=[["Bologna", []], *hotpotqa("")["context"][1:]]), "paragraph 0 is empty"),
    ("answer nowhere", hotpotqa("bad", answer="Rome"), ABSENT),
    ("NUL in type", hotpotqa("bad", type="bri\0dge"), "question_type holds a NUL byte"),
]
TWO_WIKI = [
    ("no evidences", without(two_wiki("bad"), "evidences"), "evidences: Field required"),
    ("evidence of two", two_wiki("bad", evidences=[["a", "b"]]), "evidences.0"),
    ("NUL in evidence", two_wiki("bad", evidences=[["a", "b", "c\0"]]), "evidences holds a NUL byte"),
]
STEPSEARCH = [
    ("no queries", without(stepsearch("bad"), "sub_searchs"), "sub_searchs: Field required"),
    ("flat queries", stepsearch("bad", sub_searchs=["a", "b"]), "sub_searchs.0: .*valid (list|array)"),
    ("flat paragraphs", stepsearch("bad", sub_support_docs=["a", "b"]), "sub_support_docs.0: "),
    ("no paragraphs", stepsearch("bad", sub_support_docs=[]), "sub_support_docs is empty"),
    ("fewer queries", stepsearch("bad", sub_searchs=[["a"]]), "1 lists for 2 paragraphs"),
    ("answer nowhere", stepsearch("bad", final_answer="Rome"), ABSENT),
    ("NUL in a query", stepsearch("bad", sub_searchs=[["a\0"], ["b"]]), "queries holds a NUL byte"),
    ("blank", stepsearch("bad", question=" "), "question is empty"),
]
HOP = {"question": "Who composed it?", "answer": "Gioachino Rossini", "paragraph": 0}
PARAGRAPHS = [{"title": "Pesaro", "text": "A city."}]
JSONL = [
    ("truncated", b'{"id": "bad", "question": "?"', "Invalid JSON"),
    ("a list", b"[]", "no JSON object"),
    ("no paragraphs", without(jsonl("bad"), "paragraphs"), "paragraphs: Field required"),
    ("nothing supports", jsonl("bad", paragraphs=PARAGRAPHS), "no paragraph is marked as supporting"),
    ("hop of no paragraph", jsonl("bad", hops=[HOP | {"paragraph": 3}]), "hop 1: paragraph 3 does not exist"),
    ("hop of a negative one", jsonl("bad", hops=[HOP | {"paragraph": -1}]), "hop 1: paragraph -1 does not exist"),
    ("hop refers to itself", jsonl("bad", hops=[HOP | {"question": "Who is #1?"}]), "#1 points to no earlier step"),
    ("document without text", {"title": "Milan"}, "text: Field required"),
    ("empty document", {"title": "Milan", "text": ""}, "paragraph 0 is empty"),
    ("NUL in document", {"title": "Milan", "text": "a\0"}, "paragraph 0 holds a NUL byte"),
]
TABLE: dict[str, list[tuple[str, Any, str]]] = {
    "musique": MUSIQUE,
    "hotpotqa": HOTPOT_LIKE,
    "2wiki": TWO_WIKI,
    "stepsearch": STEPSEARCH,
    "jsonl": JSONL,
}
BATCH = [Bad(kind, *bad) for kind, listed in TABLE.items() for bad in listed]


GOOD: dict[str, list[Row]] = {
    "musique": [
        musique("good musique 0", answerable=False, answer="Rome"),
        musique("good alias", answer="The city of Pesaro, Marche", answer_aliases=["Rome", "PESARO"]),
        with_paragraph("good long", 1, paragraph_text="Pesaro " * 14_000),
    ],
    "hotpotqa": [hotpotqa("good yes", answer="yes"), hotpotqa("good no", answer="No")],
    "2wiki": [],
    "stepsearch": [stepsearch("good stepsearch without queries", sub_searchs=[])],
    "jsonl": [
        jsonl("good hops", hops=[HOP, {"question": "Where was #1 born?", "answer": "Pesaro", "paragraph": 1}]),
        {"title": "Lucca", "text": "Lucca is a city in Tuscany."},
    ],
}
for step in GOOD["musique"][0]["question_decomposition"]:
    step["paragraph_support_idx"] = None


def batch(kind: str) -> list[Row | Bad]:
    """The bad rows of a format, each with good ones after it, and the odd good ones."""
    number = count()
    items: list[Row | Bad] = []
    for bad in (bad for bad in BATCH if bad.kind == kind):
        items += [bad, *(MAKE[kind](f"good {kind} {next(number)}") for _ in range(BETWEEN))]
    return items + GOOD[kind]


def encoded(kind: str) -> list[bytes]:
    return [item.data if isinstance(item, Bad) else line(item) for item in batch(kind)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> CompletedProcess[str]:
    """One build of all bad rows among good ones; hotpotqa's file breaks off in the middle of a row."""
    folder = tmp_path_factory.mktemp("load")
    (folder / "musique.jsonl").write_bytes(b"\n".join(encoded("musique")))
    whole = b"[\n" + b",\n".join(encoded("hotpotqa")) + b",\n" + line(hotpotqa("cut"))
    (folder / "hotpotqa.json.gz").write_bytes(gzip.compress(whole[:-20]))
    (folder / "2wiki.json").write_bytes(b"[" + b",".join(encoded("2wiki")) + b"]\n")
    (folder / "stepsearch.jsonl").write_bytes(b"\n".join(encoded("stepsearch")))
    (folder / "jsonl.jsonl").write_bytes(b"\r\n".join(encoded("jsonl")))
    sources = [f"--source={path.name.partition('.')[0]}={path}" for path in sorted(folder.iterdir())]
    return run_cli("build", "--store", folder / "store", *sources)


@pytest.fixture(scope="module")
def store(built: CompletedProcess[str]) -> Path:
    assert built.returncode == 3, built.stderr
    return Path(built.args[built.args.index("--store") + 1])


def table(store: Path, name: str) -> list[Row]:
    (file,) = store.glob(f"stages/load-*/{name}.parquet")
    listed: list[Row] = pq.read_table(file).to_pylist()
    return listed


@pytest.fixture(scope="module")
def rejects(store: Path) -> dict[tuple[str, int], Row]:
    return {(row["source"], row["position"]): row for row in table(store, "rejects")}


# Bad rows


@pytest.mark.parametrize("bad", BATCH, ids=lambda bad: bad.id)
def test_bad_row_is_rejected_with_position_and_reason(bad: Bad, rejects: dict[tuple[str, int], Row]) -> None:
    reject = rejects[bad.kind, batch(bad.kind).index(bad) + 1]
    assert re.search(bad.reason, reject["reason"])
    assert reject["stage"] == "load"
    assert reject["raw"]


def test_nothing_else_is_rejected(rejects: dict[tuple[str, int], Row]) -> None:
    assert len(rejects) == len(BATCH) + 1
    cut = rejects["hotpotqa", len(batch("hotpotqa")) + 1]
    assert "the array is not closed" in cut["reason"]
    assert cut["raw"].startswith('{"_id": "cut"')


def test_all_good_rows_are_loaded_in_order(store: Path) -> None:
    loaded = [(row["source"], row["question_id"]) for row in table(store, "loaded")]
    good = {kind: [row for row in batch(kind) if not isinstance(row, Bad) and "question" in row] for kind in MAKE}
    twin = GOOD["musique"][0]
    assert loaded == [
        (kind, f"{row['id']}__unanswerable" if row is twin else row.get("_id") or row["id"])
        for kind in sorted(MAKE)
        for row in good[kind]
    ]


def test_a_reject_has_the_id_where_it_can_be_read(rejects: dict[tuple[str, int], Row]) -> None:
    by_name = {bad.name: rejects[bad.kind, batch(bad.kind).index(bad) + 1] for bad in BATCH if bad.kind == "musique"}
    assert by_name["answer nowhere"]["question_id"] == "bad"
    assert by_name["NUL in id"]["question_id"] == r"b\x00ad"
    assert by_name["truncated"]["question_id"] is None
    assert by_name["id is a number"]["question_id"] is None


def test_what_bad_rows_hold_is_nowhere_else(store: Path) -> None:
    paragraphs = [(row["title"], row["text"]) for row in table(store, "paragraphs")]
    assert len(paragraphs) == len(set(paragraphs))
    long = GOOD["musique"][2]["paragraphs"][1]
    assert set(paragraphs) == {
        *(rows.OPERA, rows.COMPOSER, rows.DISTRACTOR),
        (long["title"], long["paragraph_text"]),
        ("Lucca", "Lucca is a city in Tuscany."),
    }


def test_build_goes_on_to_its_end(built: CompletedProcess[str], store: Path) -> None:
    assert "Traceback" not in built.stderr
    answerable = [row["question_id"] for row in table(store, "loaded") if row["answerable"]]
    (file,) = store.glob("stages/trajectories-*/trajectories.parquet")
    assert pq.read_table(file)["question_id"].to_pylist() == answerable
    assert f"{len(BATCH) + 1} rejects" in built.stderr


# What a row becomes


def test_hops_are_the_decomposition_or_the_supporting_paragraphs(store: Path) -> None:
    by_id = {row["question_id"]: row for row in table(store, "loaded")}
    assert {row["hops"] for row in by_id.values()} == {2}
    given = by_id["good hops"]
    assert [step["text"] for step in given["decomposition"]] == ["Who composed it?", "Where was #1 born?"]
    assert [step["passage_id"] for step in given["decomposition"]] == [p["passage_id"] for p in given["supporting"]]
    derived = by_id["good jsonl 0"]
    assert derived["decomposition"] == []
    assert [p["title"] for p in derived["supporting"]] == [rows.OPERA[0], rows.COMPOSER[0]]
    assert [p["supporting_sentences"] for p in by_id["good hotpotqa 0"]["supporting"]] == [[0], [0]]
    assert by_id["good 2wiki 0"]["evidences"][1]["object"] == "Pesaro"


def test_unanswerable_twin_has_no_gold(store: Path) -> None:
    twin = next(row for row in table(store, "loaded") if not row["answerable"])
    assert twin["question_id"] == "good musique 0__unanswerable"
    assert twin["supporting"] == []
    assert twin["answer"] == "Rome"


# One source at a time


def load(
    folder: Path,
    *sources: str,
    config: LoadConfig | None = None,
    share: float = 1.0,
    say: Callable[[str], None] | None = None,
) -> dict[str, list[Row]]:
    """The rows that the stage writes."""
    out = folder / "out"
    out.mkdir()
    context = StageContext(
        STAGE.name,
        STAGE.writes,
        config or LoadConfig(),
        {},
        out,
        sources=[parse_source(source) for source in sources],
        max_reject_share=share,
        meter=Meter(None, "load", say),
    )
    try:
        STAGE.run(context)
        context.finish()
    finally:
        context.close()
    return {path.stem: pq.read_table(path).to_pylist() for path in out.iterdir()}


WRONG = [(given, found) for given in MAKE for found in MAKE if given != found]


@pytest.mark.parametrize(("given", "found"), WRONG)
def test_wrong_format_names_the_right_source(tmp_path: Path, given: str, found: str) -> None:
    path = rows.write_lines(tmp_path / "rows.jsonl", [b"no JSON", *(MAKE[found](f"{n}") for n in range(3))])
    with pytest.raises(SourceError, match=f"given as {given}, but its rows are in the format of {found}") as caught:
        load(tmp_path, f"{given}={path}")
    assert caught.value.hint == f"use --source {found}={path}"


def test_corpus_alone_may_come_first(tmp_path: Path) -> None:
    documents = [{"title": f"Title {number}", "text": "Text."} for number in range(20)]
    path = rows.write_lines(tmp_path / "rows.jsonl", [*documents, jsonl("a")])
    loaded = load(tmp_path, f"jsonl={path}")
    assert len(loaded["paragraphs"]) == 23
    assert [row["question_id"] for row in loaded["loaded"]] == ["a"]


def test_id_may_occur_once_in_all_sources(tmp_path: Path) -> None:
    one = rows.write_lines(tmp_path / "one.jsonl", [musique("a"), musique("b")])
    other = rows.write_lines(tmp_path / "other.jsonl", [jsonl("b"), jsonl("c")])
    loaded = load(tmp_path, f"musique={one}", f"jsonl={other}")
    assert [row["question_id"] for row in loaded["loaded"]] == ["a", "b", "c"]
    assert [(row["source"], row["position"]) for row in loaded["rejects"]] == [("jsonl", 1)]


def test_checks_can_be_configured(tmp_path: Path) -> None:
    path = rows.write_lines(tmp_path / "rows.jsonl", [musique("a", answer="Rome"), musique("b")])
    relaxed = LoadConfig(answer_in_paragraph=False)
    assert len(load(tmp_path, f"musique={path}", config=relaxed)["loaded"]) == 2
    (tmp_path / "strict").mkdir()
    strict = LoadConfig(max_paragraph_chars=30)
    assert not load(tmp_path / "strict", f"musique={path}", config=strict)["loaded"]


def test_limit_counts_good_questions_of_each_source(tmp_path: Path) -> None:
    bad = musique("bad", answer="Rome")
    one = rows.write_lines(tmp_path / "one.jsonl", [bad, *(musique(f"m{n}") for n in range(9))])
    other = rows.write_lines(
        tmp_path / "other.jsonl", [{"title": "Milan", "text": "A city."}, *(jsonl(f"j{n}") for n in range(9))]
    )
    loaded = load(tmp_path, f"musique={one}", f"jsonl={other}", config=LoadConfig(limit=2))
    assert [row["question_id"] for row in loaded["loaded"]] == ["m0", "m1", "j0", "j1"]
    assert len(loaded["rejects"]) == 1


def test_hopeless_source_is_given_up_early(tmp_path: Path) -> None:
    path = rows.write_lines(tmp_path / "rows.jsonl", [musique("a"), *(b"{}" for _ in range(5_000))])
    with pytest.raises(TooManyRejects, match=r"999 of 1000 rows of musique were rejected \(999 × id: Field required\)"):
        load(tmp_path, f"musique={path}", share=0.2)


# What is noted, and what a table beside the file adds


def noted(folder: Path, *sources: str, config: LoadConfig | None = None) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows that the stage writes, and what it says."""
    told: list[str] = []
    return load(folder, *sources, config=config, share=0.2, say=told.append), told


def test_a_fact_without_its_sentence_is_left_out_and_noted(tmp_path: Path) -> None:
    facts = [[rows.OPERA[0], 0], [rows.OPERA[0], 7], [rows.COMPOSER[0], 3]]
    path = rows.write_lines(tmp_path / "rows.jsonl", [hotpotqa("a", supporting_facts=facts), hotpotqa("b")])
    loaded, told = noted(tmp_path, f"hotpotqa={path}")
    question = loaded["loaded"][0]
    assert [p["title"] for p in question["supporting"]] == [rows.OPERA[0], rows.COMPOSER[0]]
    assert [p["supporting_sentences"] for p in question["supporting"]] == [[0], []]
    assert question["notes"] == [
        "supporting_facts: 'The Barber of Seville' has no sentence 7",
        "supporting_facts: 'Gioachino Rossini' has no sentence 3",
    ]
    assert loaded["loaded"][1]["notes"] == loaded["rejects"] == []
    assert [text.partition(";")[0] for text in told] == [
        "hotpotqa: 1 questions have a supporting fact that names no sentence"
    ]


def test_a_file_of_what_was_retrieved_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """HotpotQA's fullwiki setting: most questions lack a gold paragraph, which says nothing against the others."""
    whole, context = hotpotqa("whole"), hotpotqa("")["context"]
    lacking = [hotpotqa(f"lacking {number}", context=context[:2]) for number in range(1_200)]
    path = rows.write_lines(tmp_path / "rows.jsonl", [*lacking, whole])
    loaded, told = noted(tmp_path, f"hotpotqa={path}")
    assert [row["question_id"] for row in loaded["loaded"]] == ["whole"]
    assert {row["reason"] for row in loaded["rejects"]} == {
        "supporting_facts: no paragraph is called 'Gioachino Rossini'"
    }
    assert told == [
        "hotpotqa: 1,200 questions lack a gold paragraph and are in rejects; HotpotQA's distractor file has them all"
    ]


def test_a_file_without_any_gold_is_refused_with_another_way(tmp_path: Path) -> None:
    path = rows.write_lines(tmp_path / "rows.jsonl", [hotpotqa("a", context=hotpotqa("")["context"][:2])])
    with pytest.raises(SourceError, match="no question comes with all its gold paragraphs") as caught:
        load(tmp_path, f"hotpotqa={path}")
    assert "the distractor file" in caught.value.hint


def test_hotpotqas_first_version_is_recognised_by_its_broken_questions(tmp_path: Path) -> None:
    path = rows.write_lines(
        tmp_path / "rows.jsonl", [hotpotqa("a", question="w"), hotpotqa("b", question="DRM"), hotpotqa("c")]
    )
    loaded, told = noted(tmp_path, f"hotpotqa={path}")
    assert [row["notes"] for row in loaded["loaded"]] == [["extremely short: not in HotpotQA v1.1"]] * 2 + [[]]
    assert told == [
        "hotpotqa: 2 questions are extremely short: this is HotpotQA v1.0; take hotpot_train_v1.1.json",
    ]


ROSSINI, PESARO = (
    {"Q_id": "Q9726", "aliases": ["Rossini"], "demonyms": []},
    {
        "Q_id": "Q13362",
        "aliases": ["Pisaurum", "Pesaro", " "],
        "demonyms": ["pesarese", "Pisaurum"],
    },
)
IDS = {"answer_id": "Q13362", "evidences_id": [["Q1", "composer", "Q9726"], ["Q9726", "place of birth", "Q13362"]]}


@pytest.mark.parametrize("beside", [True, False])
def test_two_wikis_table_of_aliases(tmp_path: Path, *, beside: bool) -> None:
    path = rows.write_lines(tmp_path / "dev.json", [two_wiki("a", **IDS), two_wiki("b", answer_id=None)])
    name = "id_aliases.json" if beside else "other.jsonl"
    table_file = rows.write_lines(tmp_path / name, [ROSSINI, b"no JSON", PESARO])
    config = LoadConfig(id_aliases=None if beside else table_file)
    loaded = load(tmp_path, f"2wiki={path}", config=config)
    first, second = loaded["loaded"]
    assert first["answer_aliases"] == ["Pisaurum", "pesarese"]
    assert (first["answer_id"], first["evidences"][0]["object_id"]) == ("Q13362", "Q9726")
    assert (second["answer_aliases"], second["answer_id"], second["evidences"][0]["object_id"]) == ([], "", "")
    (reject,) = loaded["rejects"]
    assert (reject["source"], reject["position"]) == ("2wiki", 2)
    assert reject["reason"].startswith(f"{table_file}: Invalid JSON")


def test_an_answer_may_occur_under_another_name(tmp_path: Path) -> None:
    path = rows.write_lines(tmp_path / "dev.json", [two_wiki("a", answer="Pisaurum Felix", **IDS)])
    assert load(tmp_path, f"2wiki={path}")["loaded"] == []
    rows.write_lines(tmp_path / "id_aliases.json", [PESARO])
    (tmp_path / "again").mkdir()
    (question,) = load(tmp_path / "again", f"2wiki={path}")["loaded"]
    assert question["answer_aliases"] == ["Pisaurum", "Pesaro", "pesarese"]


def test_what_is_no_table_of_aliases_is_refused(tmp_path: Path) -> None:
    path = rows.write_lines(tmp_path / "dev.json", [two_wiki("a", **IDS)])
    rows.write_lines(tmp_path / "id_aliases.json", [{"Q13362": ["Pisaurum"]}])
    with pytest.raises(SourceError, match=r"id_aliases\.json holds no line of Q_id, aliases and demonyms"):
        load(tmp_path, f"2wiki={path}")


def test_ids_of_other_triples_are_left_out_and_noted(tmp_path: Path) -> None:
    path = rows.write_lines(tmp_path / "dev.json", [two_wiki("a", evidences_id=[["Q1", "composer", "Q2"]])])
    loaded, told = noted(tmp_path, f"2wiki={path}")
    assert loaded["loaded"][0]["notes"] == ["evidences_id: 1 triples for 2 evidences"]
    assert "were left out" in told[0]


def test_an_answer_with_other_spaces_at_its_hyphen_is_found(tmp_path: Path) -> None:
    context = [*hotpotqa("")["context"][:2], [rows.COMPOSER[0], ["He lived in Schleswig- Holstein( Germany)."]]]
    path = rows.write_lines(tmp_path / "dev.json", [two_wiki("a", answer="Schleswig-Holstein", context=context)])
    loaded = load(tmp_path, f"2wiki={path}")
    assert len(loaded["loaded"]) == 1


# The command line


def test_too_many_rejects_stop_the_build_and_leave_the_store(tmp_path: Path, cli: Run) -> None:
    store = tmp_path / "store"
    good = rows.write_lines(tmp_path / "good.jsonl", [musique("a")])
    assert cli("build", "--to", "load", "--store", store, f"--source=musique={good}").returncode == 0
    before = {path: path.read_bytes() for path in store.glob("**/*.*") if path.is_file()}
    mixed: list[Row | bytes] = [*(musique(f"{n}") for n in range(7)), b"{}", b"{}", musique("bad", answer="Rome")]
    source = f"--source=musique={rows.write_lines(tmp_path / 'mixed.jsonl', mixed)}"

    stopped = cli("build", "--to", "load", "--store", store, source)
    assert stopped.returncode == 1
    error, hint = stopped.stderr.splitlines()
    assert "3 of 10 rows of musique were rejected (2 × id: Field required; 1 × the answer" in error
    assert "the first is row 8" in error
    assert "run.max_reject_share" in hint
    assert {path: path.read_bytes() for path in store.glob("**/*.*") if path.is_file()} == before

    allowed = cli("build", "--to", "load", "--store", store, source, "--set", "run.max_reject_share=0.3")
    assert allowed.returncode == 3
    assert len(table(store, "loaded")) == 7


def test_missing_file_is_one_line(tmp_path: Path, cli: Run) -> None:
    failed = cli("build", "--store", tmp_path / "store", f"--source=musique={tmp_path / 'none.jsonl'}")
    assert failed.returncode == 1
    error, hint = failed.stderr.splitlines()
    assert error == f"error: cannot read {tmp_path / 'none.jsonl'}: No such file or directory"
    assert hint.startswith("hint: ")
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_a_source_without_a_row_is_an_error(tmp_path: Path, cli: Run) -> None:
    (tmp_path / "none.json").write_text("[]")
    refused = cli("build", "--source", f"hotpotqa={tmp_path / 'none.json'}", "--store", tmp_path / "store")
    assert (refused.returncode, refused.stderr) == (1, f"error: {tmp_path / 'none.json'} holds no row\n")

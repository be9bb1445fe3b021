"""The sample files keep their formats, and every answer is found where its row says it is."""

import json
import re
import string
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

Row = dict[str, Any]

DATA = files("stepsearch_data") / "data"
NAMES = ("musique.sample.jsonl", "hotpotqa.sample.json")
TEXT = {name: (DATA / name).read_text(encoding="utf-8") for name in NAMES}
MUSIQUE: list[Row] = [json.loads(line) for line in TEXT[NAMES[0]].splitlines()]
HOTPOT: list[Row] = json.loads(TEXT[NAMES[1]])
ANSWERABLE = [row for row in MUSIQUE if row["answerable"]]
TWINS = [row for row in MUSIQUE if not row["answerable"]]

GRAPHS = {
    "2hop": [[], [1]],
    "3hop1": [[], [1], [2]],
    "3hop2": [[], [], [1, 2]],
    "4hop1": [[], [1], [2], [3]],
    "4hop2": [[], [], [1, 2], [3]],
    "4hop3": [[], [1], [], [2, 3]],
}
AT_LEAST = {"2hop": 10, "3hop1": 5, "3hop2": 3, "4hop1": 4, "4hop2": 3, "4hop3": 3}


def norm(text: str) -> str:
    """The benchmarks' own normalisation of answers."""
    kept = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def holds(text: str, answer: str) -> bool:
    return f" {norm(answer)} " in f" {norm(text)} "


def shape(row: Row) -> str:
    return str(row["id"]).split("__")[0]


def bare(title: str) -> str:
    return re.sub(r" \([^)]*\)$", "", title)


def tag(row: Row) -> str:
    return f"{row.get('id', row.get('_id'))}{'' if row.get('answerable', True) else '-twin'}"


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in inner for text in strings(part)]


musique = pytest.mark.parametrize("row", MUSIQUE, ids=tag)
hotpot = pytest.mark.parametrize("row", HOTPOT, ids=tag)


# Both files


def test_files_are_small_and_one_row_a_line() -> None:
    assert sum(len(text.encode()) for text in TEXT.values()) < 900_000
    assert len(TEXT[NAMES[0]].splitlines()) == TEXT[NAMES[0]].count("\n") == len(MUSIQUE)
    opening, *lines, closing = TEXT[NAMES[1]].splitlines()
    assert (opening, closing) == ("[", "]")
    assert [json.loads(line.removesuffix(",")) for line in lines] == HOTPOT


def test_text_is_printable_and_unescaped() -> None:
    assert all(text.isprintable() for text in strings([MUSIQUE, HOTPOT]))
    assert not any("\\u" in text for text in TEXT.values())


def test_a_title_has_one_text_in_both_files() -> None:
    here = {(p["title"], p["paragraph_text"]) for row in MUSIQUE for p in row["paragraphs"]}
    there = {(title, "".join(sentences)) for row in HOTPOT for title, sentences in row["context"]}
    titles = [title for title, _ in here | there]
    assert len(titles) == len(set(titles))
    assert here & there


# MuSiQue


def test_musique_has_every_graph_shape() -> None:
    counts = Counter(map(shape, ANSWERABLE))
    assert counts.keys() == AT_LEAST.keys()
    assert all(counts[name] >= least for name, least in AT_LEAST.items())
    assert len(TWINS) == 4


@pytest.mark.parametrize("rows", [ANSWERABLE, TWINS], ids=["answerable", "twins"])
def test_musique_ids_are_unique(rows: list[Row]) -> None:
    assert len({row["id"] for row in rows}) == len(rows)


def test_musique_step_ids_name_single_questions() -> None:
    asked: dict[int, set[str]] = {}
    for row in MUSIQUE:
        steps = row["question_decomposition"]
        for step in steps:
            filled = step["question"]
            for k, earlier in enumerate(steps, start=1):
                filled = filled.replace(f"#{k}", earlier["answer"])
            asked.setdefault(step["id"], set()).add(filled)
    assert all(len(questions) == 1 for questions in asked.values())


def test_musique_mixes_relations_questions_and_aliases() -> None:
    forms = Counter(" >> " in step["question"] for row in ANSWERABLE for step in row["question_decomposition"])
    assert min(forms[True], forms[False]) >= 10
    assert {bool(row["answer_aliases"]) for row in ANSWERABLE} == {True, False}


@musique
def test_musique_row_has_the_official_fields(row: Row) -> None:
    assert list(row) == [
        "id", "paragraphs", "question", "question_decomposition", "answer", "answer_aliases", "answerable",
    ]  # fmt: skip
    for paragraph in row["paragraphs"]:
        assert list(paragraph) == ["idx", "title", "paragraph_text", "is_supporting"]
    for step in row["question_decomposition"]:
        assert list(step) == ["id", "question", "answer", "paragraph_support_idx"]
    assert row["id"] == "__".join([shape(row), "_".join(str(s["id"]) for s in row["question_decomposition"])])


@musique
def test_musique_row_has_twenty_paragraphs(row: Row) -> None:
    assert [p["idx"] for p in row["paragraphs"]] == list(range(20))
    assert len({p["title"] for p in row["paragraphs"]}) == 20


@musique
def test_musique_placeholders_draw_the_shape(row: Row) -> None:
    steps = row["question_decomposition"]
    assert [sorted({int(k) for k in re.findall(r"#(\d+)", s["question"])}) for s in steps] == GRAPHS[shape(row)]
    assert steps[-1]["answer"] == row["answer"]


@musique
def test_musique_support_holds_the_answers_it_is_about(row: Row) -> None:
    steps = row["question_decomposition"]
    for step in steps:
        if step["paragraph_support_idx"] is None:
            continue
        text = row["paragraphs"][step["paragraph_support_idx"]]["paragraph_text"]
        assert step["answer"] in text
        for k in re.findall(r"#(\d+)", step["question"]):
            earlier = steps[int(k) - 1]["answer"]
            assert holds(text, earlier) or holds(text, earlier.split()[-1])  # a surname will do


@musique
def test_musique_marks_each_step_its_own_paragraph(row: Row) -> None:
    found = [s["paragraph_support_idx"] for s in row["question_decomposition"]]
    used = [idx for idx in found if idx is not None]
    assert len(used) == len(set(used)) == len(found) - (not row["answerable"])
    assert {p["idx"] for p in row["paragraphs"] if p["is_supporting"]} == set(used)


@musique
def test_musique_question_names_no_answer(row: Row) -> None:
    assert not [s["answer"] for s in row["question_decomposition"] if holds(row["question"], s["answer"])]


@pytest.mark.parametrize("row", ANSWERABLE, ids=tag)
def test_musique_answer_is_only_in_its_support(row: Row) -> None:
    last = row["question_decomposition"][-1]["paragraph_support_idx"]
    assert [p["idx"] for p in row["paragraphs"] if holds(p["paragraph_text"], row["answer"])] == [last]


@pytest.mark.parametrize("twin", TWINS, ids=tag)
def test_twin_lacks_one_paragraph_of_its_row(twin: Row) -> None:
    (row,) = [row for row in ANSWERABLE if row["id"] == twin["id"]]
    for field in ("question", "answer", "answer_aliases"):
        assert twin[field] == row[field]

    (gone,) = [s for s in twin["question_decomposition"] if s["paragraph_support_idx"] is None]
    texts = [f"{p['title']} {p['paragraph_text']}" for p in twin["paragraphs"]]
    assert not any(holds(text, gone["answer"]) for text in texts)

    for mine, other in zip(twin["question_decomposition"], row["question_decomposition"], strict=True):
        assert {**mine, "paragraph_support_idx": 0} == {**other, "paragraph_support_idx": 0}
        support = row["paragraphs"][other["paragraph_support_idx"]]
        kept = [p["title"] for p in twin["paragraphs"] if p["title"] == support["title"]]
        assert kept == ([] if mine is gone else [support["title"]])


# HotpotQA


def test_hotpotqa_has_both_types() -> None:
    counts = Counter(row["type"] for row in HOTPOT)
    assert counts.keys() == {"bridge", "comparison"}
    assert min(counts.values()) >= 13
    answers = Counter(row["answer"] for row in HOTPOT if row["type"] == "comparison")
    assert min(answers["yes"], answers["no"]) >= 1
    assert answers["yes"] + answers["no"] >= 6
    assert {row["level"] for row in HOTPOT} == {"easy", "medium", "hard"}


def test_hotpotqa_ids_are_unique() -> None:
    assert len({row["_id"] for row in HOTPOT}) == len(HOTPOT)
    assert all(re.fullmatch(r"[0-9a-f]{24}", row["_id"]) for row in HOTPOT)


@hotpot
def test_hotpotqa_row_has_ten_paragraphs(row: Row) -> None:
    assert set(row) == {"_id", "question", "answer", "supporting_facts", "context", "type", "level"}
    assert len({title for title, _ in row["context"]}) == len(row["context"]) == 10
    for _, (first, *rest) in row["context"]:
        assert not first.startswith(" ")
        assert all(re.match(r" \S", sentence) for sentence in rest)


@hotpot
def test_hotpotqa_facts_hold_the_answer(row: Row) -> None:
    context = dict(row["context"])
    first, second = dict.fromkeys(title for title, _ in row["supporting_facts"])
    facts = {title: "".join(context[title][i] for t, i in row["supporting_facts"] if t == title) for title in context}
    assert all(0 <= i < len(context[title]) for title, i in row["supporting_facts"])

    assert holds(row["question"], bare(first))
    if row["type"] == "bridge":
        assert holds(facts[first], bare(second))
        assert row["answer"] in facts[second]
        assert not holds(row["question"], bare(second))
        assert not holds(row["question"], row["answer"])
    else:
        assert holds(row["question"], bare(second))
        told = facts[first] + facts[second]
        assert row["answer"] in ("yes", "no", first, second) or row["answer"] in told


CORPUS: list[Row] = [
    json.loads(line) for line in (DATA / "corpus.sample.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_documents_are_short_and_have_titles_of_their_own() -> None:
    assert len(CORPUS) == len({row["title"] for row in CORPUS}) >= 100
    assert all(row.keys() == {"title", "text"} and 60 < len(row["text"]) < 500 for row in CORPUS)


def test_a_document_names_its_subject_and_is_named_or_names_others() -> None:
    names = {row["title"].partition(" (")[0] for row in CORPUS}
    for row in CORPUS:
        assert row["title"].partition(" (")[0] in row["text"], row["title"]
        assert any(name in row["text"] and name not in row["title"] for name in names), row["title"]

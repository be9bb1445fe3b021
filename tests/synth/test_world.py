"""The synthetic world keeps MuSiQue's row format and its promises about names, graphs and bytes."""

import gzip
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepsearch_data.synth import WorldConfig, rows, write_world
from stepsearch_data.synth.vocabulary import CYCLE
from stepsearch_data.synth.world import HOPS, _World

SMALL = WorldConfig(questions=60)
GRAPHS = {
    "2hop": [[], [1]],
    "3hop1": [[], [1], [2]],
    "3hop2": [[], [], [1, 2]],
    "4hop1": [[], [1], [2], [3]],
    "4hop2": [[], [], [1, 2], [3]],
    "4hop3": [[], [1], [], [2, 3]],
}
Row = dict[str, Any]


def tell(**changes: Any) -> list[Row]:
    return list(rows(WorldConfig(**changes)))


def texts(told: list[Row]) -> list[tuple[str, str]]:
    return [(p["title"], p["paragraph_text"]) for row in told for p in row["paragraphs"]]


@pytest.fixture(scope="module")
def world() -> list[Row]:
    return list(rows(SMALL))


def test_rows_are_in_the_official_format(world: list[Row]) -> None:
    keys = ["id", "paragraphs", "question", "question_decomposition"]
    for row in world:
        assert list(row) == [*keys, "answer", "answer_aliases", "answerable"]
        assert [p["idx"] for p in row["paragraphs"]] == list(range(SMALL.per_question))
        assert set(row["paragraphs"][0]) == {"idx", "title", "paragraph_text", "is_supporting"}
        steps = row["question_decomposition"]
        assert set(steps[0]) == {"id", "question", "answer", "paragraph_support_idx"}
        shape, facts = row["id"].split("__")
        assert facts.split("_") == [str(step["id"]) for step in steps]
        assert len(steps) == HOPS[shape]
        assert (row["answer"], row["answerable"]) == (steps[-1]["answer"], True)


def test_ids_and_questions_are_unique(world: list[Row]) -> None:
    assert len({row["id"] for row in world}) == len(world)
    assert len({row["question"] for row in world}) == len(world)


def test_shapes_take_turns_and_placeholders_follow_their_graph(world: list[Row]) -> None:
    for index, row in enumerate(world):
        asked = [step["question"] for step in row["question_decomposition"]]
        shape = SMALL.shapes[index % len(SMALL.shapes)]
        assert row["id"].startswith(f"{shape}__")
        assert [[int(n) for n in re.findall(r"#(\d)", text)] for text in asked] == GRAPHS[shape]


def test_both_step_forms_occur(world: list[Row]) -> None:
    asked = [step["question"] for row in world for step in row["question_decomposition"]]
    relational = sum(" >> " in text for text in asked)
    assert len(asked) / 4 < relational < len(asked) * 3 / 4


def test_each_answer_and_subject_stand_in_the_supporting_paragraph(world: list[Row]) -> None:
    for row in world:
        answers: list[str] = []
        for step in row["question_decomposition"]:
            support = row["paragraphs"][step["paragraph_support_idx"]]
            assert step["answer"] in support["paragraph_text"]
            for place in re.findall(r"#(\d)", step["question"]):
                assert answers[int(place) - 1] in support["title"]
                assert answers[int(place) - 1] in support["paragraph_text"]
            answers.append(step["answer"])


def test_supporting_flags_agree_with_the_decomposition(world: list[Row]) -> None:
    for row in world:
        flagged = {p["idx"] for p in row["paragraphs"] if p["is_supporting"]}
        steps = row["question_decomposition"]
        assert flagged == {step["paragraph_support_idx"] for step in steps}
        assert len(flagged) == len(steps)


def test_answers_are_distinct_and_never_in_the_question(world: list[Row]) -> None:
    for row in world:
        answers = [step["answer"].lower() for step in row["question_decomposition"]]
        assert len(set(answers)) == len(answers)
        assert not any(answer in row["question"].lower() for answer in answers)
        assert not set("#{}") & set(row["question"])


def test_no_name_is_part_of_another() -> None:
    small = _World(SMALL)
    names = [small.name(entity).lower() for entity in range(small.cycles * len(CYCLE))]
    everything = "\n".join(names)
    assert all(everything.count(name) == 1 for name in names)


@pytest.mark.parametrize(("sentences", "least", "most"), [(1, 4, 30), (4, 45, 85)])
def test_paragraphs_have_the_asked_length(sentences: int, least: int, most: int) -> None:
    told = texts(tell(questions=6, sentences=sentences))
    assert all(least <= len(text.split()) <= most for _, text in told)
    assert all(len(re.findall(r"\.(?: |$)", text)) == sentences for _, text in told)


def test_without_sentences_a_paragraph_is_a_note() -> None:
    for row in tell(questions=6, sentences=0, shapes=("2hop",)):
        for step in row["question_decomposition"]:
            gold = row["paragraphs"][step["paragraph_support_idx"]]
            assert re.fullmatch(rf"The [^:]+: {re.escape(step['answer'])}\.", gold["paragraph_text"])
            assert gold["title"] in gold["paragraph_text"]
            assert ">>" not in step["question"]


@pytest.mark.parametrize("per_question", [4, 9, 20])
def test_questions_have_distinct_paragraphs(per_question: int) -> None:
    for row in tell(questions=18, per_question=per_question):
        assert len(set(texts([row]))) == len(row["paragraphs"]) == per_question


@pytest.mark.parametrize("paragraphs", [100, 200, 500])
def test_the_file_holds_the_asked_number_of_paragraphs(paragraphs: int) -> None:
    told = tell(questions=36, paragraphs=paragraphs)
    assert len(set(texts(told))) == paragraphs


def test_the_very_last_place_completes_the_world() -> None:
    places = 50 * (10 - HOPS["2hop"])
    config: dict[str, Any] = {"questions": 50, "per_question": 10, "shapes": ("2hop",)}
    assert len(set(texts(tell(**config, paragraphs=places)))) == places
    assert places < len(set(texts(tell(**config, paragraphs=9999)))) <= places + 100


def test_distractors_are_partly_close() -> None:
    told = tell(questions=60, paragraphs=400)
    close = 0
    for row in told:
        gold = {p["title"] for p in row["paragraphs"] if p["is_supporting"]}
        close += any(p["title"] in gold for p in row["paragraphs"] if not p["is_supporting"])
    assert close > len(told) * 0.8


def test_same_seed_same_rows_and_another_seed_others() -> None:
    first = tell(questions=12, seed=7)
    assert first == tell(questions=12, seed=7)
    other = tell(questions=12, seed=8)
    assert not {row["question"] for row in first} & {row["question"] for row in other}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_files_are_the_same_bytes_and_hold_the_rows(name: str, tmp_path: Path) -> None:
    heard: list[int] = []
    copy = tmp_path / f"copy_{name}"
    assert write_world(SMALL, tmp_path / name, heard.append) == SMALL.questions
    assert write_world(SMALL, str(copy)) == SMALL.questions
    raw = copy.read_bytes()
    assert raw == (tmp_path / name).read_bytes()
    plain = gzip.decompress(raw) if name.endswith(".gz") else raw
    assert [orjson.loads(line) for line in plain.splitlines()] == list(rows(SMALL))
    assert heard == list(range(1, SMALL.questions + 1))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    target.write_text("old")

    def stop(done: int) -> None:
        raise InterruptedError(done)

    with pytest.raises(InterruptedError):
        write_world(SMALL, target, stop)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.jsonl", "old")]


def test_a_symlink_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("there.jsonl")
    write_world(SMALL, tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len((tmp_path / "there.jsonl").read_text().splitlines()) == SMALL.questions


def test_a_fifo_stays_one_and_takes_the_rows(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)  # so that neither side waits for the other
    try:
        write_world(WorldConfig(questions=2, per_question=4, sentences=1), fifo)
        assert fifo.is_fifo()
        assert len(os.read(end, 1 << 16).splitlines()) == 2
    finally:
        os.close(end)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_stays_one(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_world(SMALL, tmp_path / "full")
    assert (tmp_path / "full").is_char_device()


@pytest.mark.parametrize("name", ["w.jsonl.zst", "w.zst", "w.txt", "w.csv.gz", "w.parquet"])
def test_a_name_that_promises_another_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.jsonl or \.jsonl\.gz"):
        write_world(SMALL, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "said"), [(".", "it is a folder"), ("/", "it is a folder"), ("-", "not the name of a file")]
)
def test_what_names_no_file_is_refused(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        write_world(SMALL, name)
    assert not list(tmp_path.iterdir())


def test_a_large_world_starts_at_once() -> None:
    [row] = islice(rows(WorldConfig(questions=1_000_000, paragraphs=600_000)), 1)
    assert row["answerable"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": 0}, "questions must be at least 1"),
        ({"sentences": -1}, "sentences at least 0"),
        ({"per_question": 3}, "per_question must be at least 4, not 3"),
        ({"paragraphs": 70}, "200 questions need at least 239 paragraphs, not 70"),
        ({"shapes": ("5hop",)}, "shapes must be some of 2hop, 3hop1, .*5hop"),
        ({"shapes": ()}, "shapes must be some of"),
    ],
)
def test_impossible_worlds_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldConfig(**changes)


@pytest.mark.parametrize("shapes", [*((shape,) for shape in HOPS), tuple(HOPS)])
def test_the_smallest_world_allowed_has_all_its_questions(shapes: tuple[str, ...]) -> None:
    for questions, seed in [(6, 1), (7, 2), (60, 3), (85, 4)]:
        with pytest.raises(ValueError, match="need at least") as refusal:
            WorldConfig(questions, 0, shapes=shapes)
        least = int(str(refusal.value).split(" paragraphs")[0].split()[-1])
        config = WorldConfig(questions, least, seed, per_question=5, sentences=1, shapes=shapes)
        assert len({row["id"] for row in rows(config)}) == questions


def test_fewer_kinds_of_entities_make_fewer_relations() -> None:
    config = WorldConfig(60, None, 1, 20, 1, ("2hop", "3hop1"), kinds=("person", "city", "country"))
    told = list(rows(config))
    asked = {step["question"].partition(" >> ")[2] for row in told for step in row["question_decomposition"]} - {""}  # type: ignore[attr-defined]
    assert asked <= {"place of birth", "student of", "country", "head of government", "capital", "head of state"}
    assert len({row["question"] for row in told}) == 60


def test_kinds_without_relations_among_them_are_no_world() -> None:
    with pytest.raises(ValueError, match="too few relations"):
        WorldConfig(10, shapes=("2hop",), kinds=("song", "book"))
    with pytest.raises(ValueError, match="no shapes but"):
        WorldConfig(10, kinds=("person", "city", "country"))

"""Every gate: a trajectory that fails it, and a near miss that does not."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.schemas.rows import Quality, Rollout, Verdict
from stepsearch_data.stages import quality
from stepsearch_data.stages.gates.config import GATES, QualityConfig
from tests.builders import query, question, rollout, search_round, sub_question, supporting, verdict, vote
from tests.rows import hotpotqa, musique, write_lines
from tests.stages.conftest import RunStage, Tables

OPERA = ("p1", "The Barber of Seville", "The opera was composed by Gioachino Rossini.")
COMPOSER = ("p2", "Gioachino Rossini", "Rossini was born in Pesaro.")
Q1, Q2 = query(1, 1, text="Barber of Seville composer"), query(1, 2, text="Gioachino Rossini born")


class World:
    """A good two-hop trajectory; each part can be changed before it is judged."""

    def __init__(self, question_id: str = "q1", **fields: Any) -> None:
        self.question = question(question_id, **fields)
        identity = {"question_id": question_id, "source": self.question.source}
        self.hops = [
            sub_question(1, **identity),
            sub_question(
                2,
                sub_question="Where was Gioachino Rossini born?",
                sub_answer="Pesaro",
                gold_passage_ids=["p2"],
                **identity,
            ),
        ]
        self.queries = [q.model_copy(update={"question_id": question_id}) for q in (Q1, Q2)]
        self.rounds = [search_round(q) for q in self.queries]
        self.votes = [vote(q) for q in self.queries]
        self.verdicts: list[Verdict] = []

    def hop(self, at: int, **fields: Any) -> World:
        self.hops[at] = self.hops[at].model_copy(update=fields)
        return self

    def round(self, at: int, **fields: Any) -> World:
        self.rounds[at] = self.rounds[at].model_copy(update=fields)
        return self

    def vote(self, at: int, **fields: Any) -> World:
        self.votes[at] = self.votes[at].model_copy(update=fields)
        return self


def run(
    run_stage: RunStage,
    *worlds: World,
    marked: Collection[str] = (),
    played: Sequence[Rollout] = (),
    **config: Any,
) -> Tables:
    kept = {"rollouts": list(played)} if played else {}
    return run_stage(
        quality.STAGE,
        QualityConfig(**config),
        marked=marked,
        questions=[world.question for world in worlds],
        sub_questions=[hop for world in worlds for hop in world.hops],
        votes=[v for world in worlds for v in world.votes],
        rounds=[step for world in worlds for step in world.rounds],
        verdicts=[verdict for world in worlds for verdict in world.verdicts],
        **kept,
    )


def judge(run_stage: RunStage, *worlds: World, **config: Any) -> list[Quality]:
    rows: list[Quality] = run(run_stage, *worlds, **config)["quality"]
    return rows


def gold(**texts: str) -> dict[str, Any]:
    """The gold paragraphs of a question, with other texts."""
    return {"supporting": [supporting(i, title, texts.get(i, text)) for i, title, text in (OPERA, COMPOSER)]}


FAILS = {
    "placeholder": (World().hop(1, sub_question="Where was #1 born?"), "#1 in: Where was #1 born?"),
    "placeholder in a query": (World().round(1, alternatives=["#1 born"]), "#1 in: #1 born"),
    "leak": (
        World().round(0, query="Rossini Seville Pesaro"),
        "a query of hop 1 says 'Pesaro': Rossini Seville Pesaro",
    ),
    "leak in an alternative": (
        World().round(0, alternatives=["Barber by Gioachino Rossini"]),
        "a query of hop 1 says 'Gioachino Rossini': Barber by Gioachino Rossini",
    ),
    "answer_not_in_paragraph": (
        World(**gold(p2="Rossini was born on the Adriatic coast.")),
        "hop 2: 'Pesaro' is not in its paragraph",
    ),
    "sub_question_is_question": (
        World().hop(1, sub_question="Where was a composer of the barber of Seville born"),
        "hop 2 asks the whole question",
    ),
    "gold_not_found": (
        World().vote(0, gold_rank=None, kept=False),
        "no engine finds a gold passage of hop 1",
    ),
    "gold_not_shown": (World().round(1, gold_rank=None), "round 2 shows no gold passage"),
    "gold_not_shown, not kept": (World().round(1, kept=False), "round 2 has no kept query"),
    "broken_text": (
        World(**gold(p1="The opera was composed by Gioachino Rossini\ufffd.")),
        "paragraph 'The Barber of Seville' holds a replacement character",
    ),
    "broken_text in the question": (
        World(question="Where was the composer of â€œThe Barber of Sevilleâ€\u009d born?"),
        "the question holds the control character U+009D",
    ),
}
PASSES = {
    "a rank that the question names": World(question="Who sang the #1 hit?").hop(
        1, sub_question="Whose is the #1 hit?"
    ),
    "a rank that a gold paragraph names": World(**gold(p1="A #1 hit by Gioachino Rossini.")).round(0, query="#1 hit"),
    "a number that is no hop": World().hop(1, sub_question="Who wore the #7 shirt?"),
    "an answer of an earlier hop in a query": World().round(1, query="Gioachino Rossini birthplace"),
    "an answer that the question holds": World(question="Is Pesaro where he was born?").round(0, query="Pesaro born"),
    "an answer written otherwise": World(**gold(p2="Born at Pesaro (Italy).")).hop(1, sub_answer="Pesaro, Italy"),
    "a title with half of its words": World().hop(0, sub_answer="Rossini, G."),
    "yes": World(answer="yes").hop(1, sub_answer="yes"),
    "a sub-question with one more word": World().hop(
        1, sub_question="Knowing him: Where was the composer of The Barber of Seville born?"
    ),
    "one hop that is the question": World(hops=1).hop(
        0, sub_question="Where was the composer of The Barber of Seville born?"
    ),
    "a hop that one of the engines finds": World().vote(0, gold_rank=10),
    "accents and symbols": World(**gold(p2="Rossini – «Gioacchino» – was born in Pesaro, è vero; £5, 20 °C.")),
}


@pytest.mark.parametrize("name", FAILS)
def test_a_gate_flags_what_is_wrong_and_says_why(name: str, run_stage: RunStage) -> None:
    world, reason = FAILS[name]
    gate = name.partition(" ")[0].rstrip(",")
    (row,) = judge(run_stage, world)
    assert row.flags[0] == gate
    assert reason in row.reasons
    assert (row.passed, row.split) == (False, "")
    (flagged,) = judge(run_stage, world, **dict.fromkeys(row.flags, "flag"))
    assert (flagged.passed, flagged.flags) == (True, row.flags)
    (off,) = judge(run_stage, world, **dict.fromkeys(row.flags, "off"))
    assert (off.passed, off.flags) == (True, [])


@pytest.mark.parametrize("name", PASSES)
def test_near_misses_pass(name: str, run_stage: RunStage) -> None:
    (row,) = judge(run_stage, PASSES[name])
    assert (row.flags, row.reasons, row.passed) == ([], [], True)


def test_every_gate_has_a_case_here() -> None:
    elsewhere = {"duplicate", "near_duplicate", "eval_overlap", "eval_single_hop", "length", "not_english"}
    elsewhere |= {"unproven", "marks", "pass_rate"}
    assert {name.partition(" ")[0].rstrip(",") for name in FAILS} | elsewhere == set(GATES)


@pytest.mark.parametrize(
    ("setting", "marked", "reason"),
    [
        ("ignore", {"q1"}, None),
        ("drop-bad", {"q1"}, "a reader marked it bad"),
        ("drop-bad", {"q2"}, None),
        ("only-good", {"q1"}, None),
        ("only-good", set(), "no reader marked it good"),
    ],
)
def test_what_a_reader_marks_fails_or_passes(
    setting: str, marked: set[str], reason: str | None, run_stage: RunStage
) -> None:
    (row,) = judge(run_stage, World(), marked=marked, marks=setting)
    assert (row.passed, row.flags, row.reasons) == (
        reason is None,
        ["marks"] if reason else [],
        [reason] if reason else [],
    )


def test_a_pass_rate_out_of_its_range_is_rejected(run_stage: RunStage) -> None:
    worlds = [World(f"q{n}", question=f"Where was the composer of Opera {n:03} born?") for n in range(4)]
    played = [rollout(f"q{n}", sample=at, right=at <= n) for n in range(3) for at in (1, 2)]
    rows = judge(run_stage, *worlds, played=played, pass_rate=(0.2, 0.8))
    assert [(row.pass_rate, row.passed) for row in rows] == [(0, False), (0.5, True), (1, False), (None, True)]
    assert (rows[0].flags, rows[0].reasons) == (["pass_rate"], ["0 of the rollouts are right, not 0.2 to 0.8"])
    assert [row.difficulty_score for row in judge(run_stage, *worlds, played=played)[:3]] == [0.5, 0.25, 0]
    other = [rollout("q0", "other", right=True)]
    assert judge(run_stage, *worlds, played=[*other, *played], policy="other")[0].pass_rate == 1
    with pytest.raises(ConfigError, match="rollouts of 2 policies"):
        judge(run_stage, *worlds, played=[*other, *played])
    with pytest.raises(ConfigError, match=r"quality\.pass_rate needs rollouts"):
        judge(run_stage, *worlds, pass_rate=(0.2, 0.8))
    with pytest.raises(ValueError, match="the lower end first"):
        QualityConfig(pass_rate=(0.8, 0.2))


def test_later_settings_that_decide_nothing_leave_a_store_current() -> None:
    assert not {"marks", "pass_rate", "policy"} & QualityConfig().model_dump().keys()
    assert {"pass_rate", "policy"} <= QualityConfig(pass_rate=(0.2, 0.8), policy="a").model_dump().keys()


def test_a_copy_of_what_a_reader_marks_bad_may_pass(run_stage: RunStage) -> None:
    first, second = judge(run_stage, World(), World("q2"), marked={"q1"}, marks="drop-bad")
    assert (first.passed, second.passed) == (False, True)


def test_a_repeated_question_is_flagged_and_the_first_one_stays(run_stage: RunStage) -> None:
    again = World("q2", question="where was a composer of The Barber of Seville born")
    other = World("q3", question="Where was the composer of The Barber of Baghdad born?")
    first, second, third = judge(run_stage, World(), again, other)
    assert (first.passed, first.duplicate_of) == (True, None)
    assert (second.flags, second.reasons, second.duplicate_of) == (["duplicate"], ["the same words as q1"], "q1")
    assert (third.passed, third.flags) == (True, [])


def test_a_repeated_question_stays_where_the_first_one_fails(run_stage: RunStage) -> None:
    first, second = judge(run_stage, World().round(1, kept=False), World("q2"))
    assert (first.passed, second.passed, second.duplicate_of) == (False, True, None)


def test_a_reworded_question_is_flagged(run_stage: RunStage) -> None:
    reworded = World("q2", question="The composer of The Barber of Seville was born where?")
    elsewhere = World("q3", question="The composer of The Barber of Seville was born where, say?", answer="Rome")
    _, second, third = judge(run_stage, World(), reworded, elsewhere)
    assert (second.flags, second.duplicate_of) == (["near_duplicate"], "q1")
    assert "near_duplicate" not in third.flags  # another answer: another question


def test_unusual_lengths_are_flagged_but_pass(run_stage: RunStage) -> None:
    usual = [World(f"q{n}", question=f"Where was the composer of Opera {n:03} born?") for n in range(20)]
    long = World("long", question=f"Where was the composer of {'the most famous opera of ' * 12} Seville born?")
    longer = World("longer", question="Where was the famous Italian composer of the comic opera Opera 123 born?")
    rows = judge(run_stage, *usual, long, longer)
    assert {row.question_id for row in rows if row.flags} == {"long"}
    assert rows[-2].passed
    assert rows[-2].reasons == [f"a question of {len(long.question.question)} characters; 15 to 111 are usual"]


def test_another_language_is_flagged_but_passes(run_stage: RunStage) -> None:
    (row,) = judge(run_stage, World(question="Wo wurde der Komponist von Il barbiere di Siviglia geboren?"))
    assert (row.flags, row.passed) == (["not_english"], True)
    assert row.reasons == ["the question has 0 English stop words among 10 words"]


def test_a_question_that_has_not_passed_its_checks_is_flagged_where_that_is_asked(run_stage: RunStage) -> None:
    good, named, unasked = World("q1"), World("q2", question="Who?"), World("q3", question="What?")
    good.verdicts, named.verdicts = [verdict("q1")], [verdict("q2", passed=False, first_failed="bridge_named")]
    unasked.verdicts = [verdict("q3", passed=False, complete=False)]
    rows = judge(run_stage, good, named, unasked, unproven="flag", near_duplicate="off", length="off")
    assert [row.reasons for row in rows] == [[], ["fails bridge_named"], ["not fully checked"]]
    assert not [row for row in judge(run_stage, good, named, near_duplicate="off", length="off") if row.flags]


@pytest.fixture
def eval_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "dev.jsonl", [musique("2hop__111_222"), b"{broken"])


def test_evaluation_data_stays_out_of_training(run_stage: RunStage, eval_file: Path) -> None:
    shared = ("The Barber of Seville", "The Barber of Seville is an opera, composed by Gioachino  Rossini.")
    paragraph = World(
        "2hop__1_2", question="Whose is it?", supporting=[supporting("p1", *shared), supporting(*COMPOSER)]
    )
    words = World("2hop__3_4", question="Where was the composer of The Barber of Seville born")
    hop = World("2hop__5_222", question="Who else?")
    clean = World("2hop__5_22", question="Who is next?")
    rows = judge(run_stage, paragraph, words, hop, clean, eval_sources=(f"musique={eval_file}",), length="off")
    assert [row.flags for row in rows] == [["eval_overlap"], ["eval_overlap"], ["eval_single_hop"], []]
    assert rows[0].reasons == ["a gold paragraph of the evaluation data: The Barber of Seville"]
    assert rows[2].reasons == ["made of the evaluation data's single-hop question 222"]


def test_any_file_of_questions_and_answers_is_evaluation_data(run_stage: RunStage, tmp_path: Path) -> None:
    """Also one of the fullwiki setting, whose gold paragraphs may not be there."""
    table = pa.Table.from_pylist([{"id": "test_0", "question": "Whose is it", "golden_answers": ["Rossini's"]}])
    pq.write_table(table, tmp_path / "test.parquet")
    retrieved = hotpotqa("a", question="Who else?", context=hotpotqa("")["context"][:2])
    write_lines(tmp_path / "fullwiki.json", [retrieved])
    (tmp_path / "bamboogle.csv").write_text("Question,Answer\nWho is last?,Ada\n")
    given = (
        f"qa={tmp_path / 'test.parquet'}",
        f"hotpotqa={tmp_path / 'fullwiki.json'}",
        f"bamboogle={tmp_path / 'bamboogle.csv'}",
    )
    asked = ("Whose is it?", "Who else?", "Who is next?", "Who is last?")
    worlds = [World(f"q{at}", question=text) for at, text in enumerate(asked)]
    tables = run(run_stage, *worlds, eval_sources=given, length="off")
    assert ["eval_overlap" in row.flags for row in tables["quality"]] == [True, True, False, True]
    assert tables["rejects"] == []
    assert len(QualityConfig(eval_sources=given).digests()) == 3


def test_a_row_of_the_evaluation_data_that_cannot_be_read_is_a_reject(run_stage: RunStage, eval_file: Path) -> None:
    (reject,) = run(run_stage, World(), eval_sources=(f"musique={eval_file}",))["rejects"]
    assert (reject.source, reject.position) == ("quality.eval_sources musique", 2)


def test_single_hop_ids_come_from_a_file(run_stage: RunStage, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("12019\n\n3hop1__7_8_9\n")
    names = ["2hop__482757_12019", "3hop1__1_2_9__unanswerable", "2hop__482757_1201", "2hop__9"]
    worlds = [World(name, question=f"Who is {name}?", answerable=n != 1) for n, name in enumerate(names)]
    hotpot = World("12019", source="hotpotqa", question="Who is it?")
    rows = judge(run_stage, *worlds, hotpot, eval_single_hop_ids=ids)
    assert ["eval_single_hop" in row.flags for row in rows] == [True, True, False, True, False]


def test_pass_rates_come_from_rollouts(run_stage: RunStage, tmp_path: Path) -> None:
    file = tmp_path / "rollouts.jsonl"
    rows = [
        {"question_id": "q1", "score": 0.5},
        {"id": "q1", "correct": True, "response": "…"},
        {"id": "elsewhere", "correct": False},
        {"id": 1, "score": 1},
        {"id": "q1", "score": "good"},
        [],
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    tables = run(run_stage, World(), World("q2", question="Who?"), rollouts=file)
    assert [row.pass_rate for row in tables["quality"]] == [0.75, None]
    assert [row.difficulty_score for row in tables["quality"]] == [0.125, 0.0]
    assert [reject.position for reject in tables["rejects"]] == [4, 5, 6, 7]
    assert tables["rejects"][0].reason == "it has no question_id or id that is a text"


def test_a_file_that_is_not_there_is_an_error(run_stage: RunStage, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        QualityConfig(rollouts=tmp_path / "no.jsonl").digests()


def test_what_a_file_holds_is_part_of_the_fingerprint(eval_file: Path, tmp_path: Path) -> None:
    config = QualityConfig(eval_sources=(f"musique={eval_file}",))
    before = config.digests()
    eval_file.write_text(json.dumps(musique("2hop__1_2")))
    assert list(before) == ["eval_sources 1"]
    assert config.digests() != before
    assert QualityConfig().digests() == {}


def test_questions_with_a_common_gold_paragraph_are_in_one_split(run_stage: RunStage) -> None:
    worlds = [World(f"q{n}", question=f"Question {n}?", answer=str(n)) for n in range(3)]
    apart = World(
        "q9", question="Question 9?", supporting=[supporting("p8", *OPERA[1:]), supporting("p9", *COMPOSER[1:])]
    )
    rows = judge(run_stage, *worlds, apart, validation=0.5)
    assert [row.split_group for row in rows] == ["p1", "p1", "p1", "p8"]
    assert len({row.split for row in rows[:3]}) == 1


def test_a_question_without_a_trajectory_has_no_row(run_stage: RunStage) -> None:
    twin = World("q1__unanswerable", answerable=False)
    twin.hops, twin.rounds, twin.votes = [], [], []
    assert [row.question_id for row in judge(run_stage, World(), twin)] == ["q1"]


def test_no_question_at_all_is_no_trouble(run_stage: RunStage) -> None:
    assert judge(run_stage) == []


def test_an_abstention_need_not_find_what_is_missing(run_stage: RunStage) -> None:
    twin = World("q1__unanswerable", answerable=False, supporting=[supporting(*OPERA)])
    twin.hop(1, gold_passage_ids=[]).round(1, role="abstain", kept=False, gold_rank=None)
    twin.vote(1, kept=False, gold_rank=None)
    rows = judge(run_stage, World(), twin, validation=0.5)
    assert [row.passed for row in rows] == [True, True]
    assert rows[0].split == rows[1].split

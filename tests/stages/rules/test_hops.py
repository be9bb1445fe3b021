from __future__ import annotations

import pytest

from stepsearch_data.schemas.rows import DecompositionStep, Evidence
from stepsearch_data.stages.rules import decompose, write_queries
from tests.builders import question, supporting


def test_an_official_decomposition_is_verbalised_and_kept() -> None:
    steps = [
        DecompositionStep(text="The Barber of Seville >> composer", answer="Gioachino Rossini", passage_id="p1"),
        DecompositionStep(text="where was #1 born", answer="Pesaro", passage_id="p2"),
    ]
    first, second = decompose(question(decomposition=steps))
    assert first.sub_question == "Who composed The Barber of Seville?"
    assert first.relation_form == "The Barber of Seville >> composer"
    assert (first.depends_on, first.gold_passage_ids, first.method) == ([], ["p1"], "official")
    assert second.template == "Where was #1 born?"
    assert second.sub_question == "Where was Gioachino Rossini born?"
    assert (second.depends_on, second.gold_passage_ids, second.hops) == ([1], ["p2"], 2)


def test_an_official_step_may_name_what_looks_like_a_placeholder() -> None:
    steps = [
        DecompositionStep(text="Who designed Sector #4?", answer="Gioachino Rossini", passage_id="p1"),
        DecompositionStep(text="Where was #1 born?", answer="Pesaro", passage_id="p2"),
    ]
    first, second = decompose(question(decomposition=steps))
    assert (first.sub_question, first.depends_on) == ("Who designed Sector #4?", [])
    assert (second.sub_question, second.depends_on) == ("Where was Gioachino Rossini born?", [1])


def test_a_bridge_question_reads_the_paragraph_that_names_the_other_first() -> None:
    bridge = question(source="hotpotqa", question_type="bridge", supporting=list(reversed(question().supporting)))
    first, second = decompose(bridge)
    assert (first.gold_passage_ids, first.sub_answer) == (["p1"], "Gioachino Rossini")
    assert (second.gold_passage_ids, second.sub_answer, second.depends_on) == (["p2"], "Pesaro", [1])


def test_a_comparison_looks_up_each_side_in_the_order_of_the_question() -> None:
    comparison = question(
        source="hotpotqa",
        question_type="comparison",
        question="Which is older, Mirabella or Home Monthly?",
        answer="Home Monthly",
        supporting=[
            supporting(
                "p2", "Home Monthly", "It began in 1896. It ended.", sentence_ends=[17, 27], supporting_sentences=[0]
            ),
            supporting("p1", "Mirabella (magazine)", "It began in 1989."),
        ],
    )
    first, second = decompose(comparison)
    assert (first.gold_passage_ids, second.gold_passage_ids) == (["p1"], ["p2"])
    assert (first.sub_answer, second.sub_answer) == ("It began in 1989.", "It began in 1896.")
    assert second.depends_on == []


def test_evidences_give_2wiki_one_hop_a_paragraph_in_their_order() -> None:
    two_wiki = question(
        source="2wiki",
        question_type="bridge_comparison",
        question="Which film has the older director, Rome or Oslo?",
        answer="Rome",
        supporting=[
            supporting("d2", "Bea Berg", "Born 1930."),
            supporting("f1", "Rome (film)", "By Al Ash."),
            supporting("d1", "Al Ash", "Born 1901."),
            supporting("f2", "Oslo (film)", "By Bea Berg."),
        ],
        evidences=[
            Evidence(subject="Rome", relation="director", object="Al Ash"),
            Evidence(subject="Oslo", relation="director", object="Bea Berg"),
            Evidence(subject="Al Ash", relation="date of birth", object="1901"),
            Evidence(subject="Bea Berg", relation="date of birth", object="1930"),
        ],
    )
    hops = decompose(two_wiki)
    assert [hop.gold_passage_ids for hop in hops] == [["f1"], ["f2"], ["d1"], ["d2"]]
    assert [hop.depends_on for hop in hops] == [[], [], [1], [2]]
    assert hops[2].sub_question == "When was Al Ash born?"
    assert hops[2].relation_form == "#1 >> date of birth"


def test_a_hop_may_find_the_next_ones_subject_under_another_name() -> None:
    chain = question(
        source="2wiki",
        question_type="compositional",
        supporting=[supporting("f1", "Rome (film)", "By Al Ash."), supporting("d1", "Alfred Ash", "Born 1901.")],
        evidences=[
            Evidence(subject="Rome", relation="director", object="Al Ash", subject_id="Q1", object_id="Q2"),
            Evidence(subject="Alfred Ash", relation="date of birth", object="1901", subject_id="Q2"),
        ],
    )
    hops = decompose(chain)
    assert [hop.depends_on for hop in hops] == [[], [1]]
    assert hops[1].template == "When was #1 born?"
    unknown = [e.model_copy(update={"subject_id": "", "object_id": ""}) for e in chain.evidences]
    assert decompose(chain.model_copy(update={"evidences": unknown}))[1].depends_on == []


def test_several_triples_of_one_paragraph_share_a_hop() -> None:
    lived = question(
        source="2wiki",
        question_type="comparison",
        supporting=[supporting("p1", "Al Ash", "1901-1980"), supporting("p2", "Bea Berg", "1930-1940")],
        evidences=[
            Evidence(subject="Al Ash", relation="date of birth", object="1901"),
            Evidence(subject="Al Ash", relation="date of death", object="1980"),
            Evidence(subject="Bea Berg", relation="date of birth", object="1930"),
            Evidence(subject="Bea Berg", relation="date of death", object="1940"),
        ],
    )
    first, second = decompose(lived)
    assert first.sub_question == "When was Al Ash born? When did Al Ash die?"
    assert (first.sub_answer, second.sub_answer) == ("1901; 1980", "1930; 1940")


def test_every_hop_depends_on_earlier_hops_only() -> None:
    chain = question(
        source="jsonl",
        question_type="",
        supporting=[supporting(f"p{n}", f"Title {n}", f"See Title {n + 1}.") for n in range(1, 5)],
    )
    hops = decompose(chain)
    assert [hop.hop for hop in hops] == [1, 2, 3, 4]
    assert all(max(hop.depends_on, default=0) < hop.hop for hop in hops)
    assert hops[-1].sub_answer == "Pesaro"


def test_one_supporting_paragraph_is_one_hop() -> None:
    (hop,) = decompose(question(source="jsonl", supporting=[supporting("p1", "Pesaro", "Rossini was born in Pesaro.")]))
    assert (hop.sub_question, hop.sub_answer) == (question().question, "Pesaro")


@pytest.mark.parametrize("rank", ["#40", "#1", "#2", "#0"])
@pytest.mark.parametrize("kind", ["bridge", "comparison"])
def test_a_rank_in_the_question_is_no_placeholder(rank: str, kind: str) -> None:
    asked = f"Which singer of the {rank} hit was born where the opera was composed?"
    for hop in decompose(question(source="hotpotqa", question_type=kind, question=asked)):
        assert asked in hop.sub_question
        assert all(earlier < hop.hop for earlier in hop.depends_on)


def test_a_subject_that_looks_like_a_placeholder_is_none() -> None:
    dream = question(
        source="2wiki",
        supporting=[supporting("p1", "#9 Dream", "By Al Ash."), supporting("p2", "Al Ash", "Born 1901.")],
        evidences=[
            Evidence(subject="#9 Dream", relation="performer", object="Al Ash"),
            Evidence(subject="Al Ash", relation="date of birth", object="1901"),
        ],
    )
    first, second = decompose(dream)
    assert first.sub_question == "Who performed #9 Dream?"
    assert (second.template, second.sub_question, second.depends_on) == (
        "When was #1 born?",
        "When was Al Ash born?",
        [1],
    )
    assert write_queries(dream, [first, second], first, 2)[0].query == "#9 Dream performer"

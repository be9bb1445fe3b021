from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.schemas.rows import DecompositionStep, Question, SubQuestion
from stepsearch_data.stages.model import decompose, load_prompt
from stepsearch_data.stages.model.decompose import decompose_request
from stepsearch_data.stages.model.replies import Decomposition, schema_of
from tests.builders import question, supporting
from tests.stages.model.scripted import SETTINGS, ScriptedModel, wait

PROMPT = load_prompt("decompose")
OFFICIAL = [
    DecompositionStep(text="The Barber of Seville >> composer", answer="Gioachino Rossini", passage_id="p1"),
    DecompositionStep(text="Where was #1 born?", answer="Pesaro", passage_id="p2"),
]


def step(text: str, answer: str, paragraph: int, *depends_on: int) -> dict[str, Any]:
    return {"question": text, "answer": answer, "paragraph": paragraph, "depends_on": list(depends_on)}


FIRST = step("Who composed The Barber of Seville?", "Gioachino Rossini", 1)
LAST = step("Where was #1 born?", "Pesaro", 2, 1)


def run(asked: Question, *steps: dict[str, Any]) -> list[SubQuestion]:
    return wait(decompose(ScriptedModel({"steps": steps}), PROMPT, asked, SETTINGS))


def complaints(asked: Question, *steps: dict[str, Any]) -> list[str]:
    """What the model is told of these steps."""
    model = ScriptedModel({"steps": steps}, RowRejected("enough"))
    with pytest.raises(RowRejected, match="enough"):
        wait(decompose(model, PROMPT, asked, SETTINGS))
    return [line.removeprefix("- ") for line in model.last_complaint.splitlines() if line.startswith("- ")]


def test_steps_become_hops() -> None:
    first, last = run(question(), FIRST, LAST)
    assert last == SubQuestion(
        question_id="q1",
        source="musique",
        hop=2,
        hops=2,
        sub_question="Where was Gioachino Rossini born?",
        template="Where was #1 born?",
        relation_form="",
        sub_answer="Pesaro",
        depends_on=[1],
        gold_passage_ids=["p2"],
        method="model",
    )
    assert (first.hop, first.sub_question, first.depends_on) == (1, "Who composed The Barber of Seville?", [])


def test_the_prompt_shows_everything_that_is_known() -> None:
    asked = question(decomposition=OFFICIAL, answer_aliases=["Pesaro, Italy"])
    request = decompose_request(PROMPT, asked, SETTINGS)
    assert request.schema == schema_of(Decomposition)
    user = request.messages[1].content
    assert f"Question: {asked.question}" in user
    assert "Answer: Pesaro (also accepted: Pesaro, Italy)" in user
    assert "1. The Barber of Seville >> composer → Gioachino Rossini (paragraph 1)" in user
    assert "[2] Gioachino Rossini\nRossini was born in Pesaro." in user
    assert "Official decomposition:\nnone" in decompose_request(PROMPT, question(), SETTINGS).messages[1].content


def test_official_relation_forms_are_kept_where_the_steps_go_the_official_way() -> None:
    assert [hop.relation_form for hop in run(question(decomposition=OFFICIAL), FIRST, LAST)] == [
        "The Barber of Seville >> composer",
        "",
    ]
    swapped = question(decomposition=[OFFICIAL[1], OFFICIAL[0]])
    assert [hop.relation_form for hop in run(swapped, FIRST, LAST)] == ["", ""]


def test_a_reference_is_a_dependency_even_when_not_declared() -> None:
    assert run(question(), FIRST, step("Where was #1 born?", "Pesaro", 2))[1].depends_on == [1]
    assert run(question(), FIRST, step("Where was he born?", "Pesaro", 2, 1))[1].depends_on == [1]


@pytest.mark.parametrize("answer", ["pesaro", "The Pesaro!", "Italy's Pesaro"])
def test_the_last_answer_may_be_an_alias_and_is_compared_officially(answer: str) -> None:
    text = "Rossini was born in Italys Pesaro."
    asked = question(
        answer_aliases=["Italys Pesaro"],
        supporting=[question().supporting[0], supporting("p2", "Rossini", text)],
    )
    assert run(asked, FIRST, step("Where was #1 born?", answer, 2))[1].sub_answer == answer


@pytest.mark.parametrize("gold", ["yes", "No"])
def test_yes_and_no_need_to_occur_nowhere(gold: str) -> None:
    asked = question(question="Is there no town of birth?", answer=gold)
    run(asked, FIRST, step("Where was #1 born?", "Pesaro", 2), step("Is there no #2 in Italy, yes or no?", gold, 2))


def test_a_gold_answer_that_is_written_nowhere_is_not_looked_for() -> None:
    run(question(answer="Marche"), FIRST, step("In which region was #1 born?", "Marche", 2))


def test_an_answer_that_normalises_to_nothing_is_looked_for_as_it_is() -> None:
    asked = question(answer="The", supporting=[supporting("p1", "Articles", "The is the English one.")])
    run(asked, step("Which article?", "The", 1))
    assert (
        "does not occur"
        in complaints(question(), step("Which?", "Un", 1), step("What?", "!", 1), step("Where?", "Pesaro", 2))[1]
    )


def test_the_number_of_steps_is_bounded() -> None:
    assert complaints(question()) == ["write 1 to 8 steps, not 0"]
    assert complaints(question(), *[FIRST] * 8, LAST) == ["write 1 to 8 steps, not 9"]


def test_the_number_of_official_steps_is_kept() -> None:
    asked = question(decomposition=OFFICIAL)
    middle = step("Who wrote it?", "Rossini", 2)
    assert complaints(asked, FIRST, middle, LAST) == [
        "write 2 steps, one for each step of the official decomposition, not 3"
    ]


@pytest.mark.parametrize(
    ("first", "last", "complaint"),
    [
        (FIRST, step("Who was #1?", "Rossini", 2), "the answer of the last step must be 'Pesaro', not 'Rossini'"),
        (step("Who?", "Verdi", 1), LAST, "step 1: its answer 'Verdi' does not occur in paragraph 1 (copy it verbatim)"),
        (
            FIRST,
            step("Where was #1 born?", "Pesaro", 1),
            "step 2: its answer 'Pesaro' does not occur in paragraph 1 (it does in paragraph 2)",
        ),
        (FIRST, step("Where?", "Pesaro", 3), "step 2: there is no paragraph 3; they are numbered from 1 to 2"),
        (FIRST, step("Where?", "Pesaro", 0), "step 2: there is no paragraph 0; they are numbered from 1 to 2"),
        (step("Who?", "Rossini", 2), LAST, "paragraph 1 supports the answer, but no step uses it"),
        (step(" ?", "Rossini", 1), LAST, "step 1: the question is empty"),
        (step("Who?", " ", 1), LAST, "step 1: the answer is empty"),
        (FIRST, step("Where was #1 born?", "Pesaro", 2, 2), "step 2: depends_on holds 2, which is no earlier step"),
        (step("Who?", "Rossini", 1, 2), LAST, "step 1: depends_on holds 2, which is no earlier step"),
        (
            step("Who, of #2?", "Rossini", 1),
            LAST,
            "step 1: #2 in its question stands for no earlier step (for a rank, write 'number 2')",
        ),
        (
            FIRST,
            step("Where was #0 born?", "Pesaro", 2),
            "step 2: #0 in its question stands for no earlier step (for a rank, write 'number 0')",
        ),
        (
            step("Was it Gioachino Rossini?", "Gioachino Rossini", 1),
            LAST,
            "step 1: its question gives away 'Gioachino Rossini', which only this or a later step finds out",
        ),
        (
            step("Which man of Pesaro composed it?", "Gioachino Rossini", 1),
            LAST,
            "step 1: its question gives away 'Pesaro', which only this or a later step finds out",
        ),
    ],
)
def test_a_fault_is_named(first: dict[str, Any], last: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(question(), first, last)


def test_what_the_question_says_is_no_leak() -> None:
    asked = question(question="Was Gioachino Rossini of Pesaro the composer?")
    run(asked, step("Was Gioachino Rossini the composer?", "Gioachino Rossini", 1), LAST)


def test_an_earlier_answer_is_no_leak() -> None:
    run(question(), FIRST, step("Where was Gioachino Rossini born?", "Pesaro", 2, 1))


def test_only_official_paragraphs_are_needed_where_the_decomposition_is_official() -> None:
    extra = supporting("p3", "Opera", "An opera is sung.")
    asked = question(supporting=[*question().supporting, extra])
    assert complaints(asked, FIRST, LAST) == ["paragraph 3 supports the answer, but no step uses it"]
    run(asked.model_copy(update={"decomposition": OFFICIAL}), FIRST, LAST)


def test_more_paragraphs_than_steps_cannot_all_be_used() -> None:
    many = [supporting(f"x{n}", "Opera", "An opera is sung.") for n in range(7)]
    run(question(supporting=[*question().supporting, *many]), FIRST, LAST)


def test_a_mended_reply_is_taken() -> None:
    model = ScriptedModel({"steps": [FIRST]}, {"steps": [FIRST, LAST]})
    assert len(wait(decompose(model, PROMPT, question(), SETTINGS))) == 2


def test_a_hopeless_row_is_rejected_with_the_last_reply() -> None:
    model = ScriptedModel("no", "no", "{}")
    with pytest.raises(RowRejected, match="steps: Field required") as rejected:
        wait(decompose(model, PROMPT, question(), SETTINGS))
    assert (rejected.value.raw, rejected.value.attempts) == ("{}", 3)

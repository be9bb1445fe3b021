"""What is refused of a composed question, each for one reason, without a model."""

from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.search.documents import Document
from stepsearch_data.stages.composing.checks import faults
from stepsearch_data.stages.composing.drafts import Draft, draft_of
from stepsearch_data.stages.model.replies import Composition
from tests.builders import chain
from tests.stages.composing.replies import COMPOSER, OPERA, bridge, compared, comparison, composition, hop, with_hop

GOOD, PAIR = composition(), compared()


def found(reply: dict[str, Any], draft: Draft | None = None) -> list[str]:
    return faults(Composition.model_validate(reply), draft or bridge())


def test_a_good_question_has_no_fault() -> None:
    assert found(GOOD) == []
    assert found(PAIR, comparison()) == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"hops": GOOD["hops"][:1]}, "write 2 hops, one for each passage, not 1"),
        ({"question": "In which town was the composer of the opera Seville born?"}, "must name 'Seville (1816 opera)'"),
        ({"question": "In which town was the composer of the 1816 opera born?"}, "must name 'Seville (1816 opera)'"),
        (
            {"question": "In which town was Gioachino Rossini, of the 1816 opera Seville, born?"},
            "gives away 'Gioachino Rossini'",
        ),
        (
            {"question": "Is Pesaro where the composer of the 1816 opera Seville was born?"},
            "gives away 'Pesaro'",
        ),
        ({"question": "Name the town of the composer of the 1816 opera Seville."}, "ends in ?"),
        ({"question": "In which town was #1 of the 1816 opera Seville born?"}, "holds no # number"),
        ({"question": f"Of the 1816 opera Seville, {'x' * 500}?"}, "at most 500 characters"),
        (
            {"question": "In which town of this text was the composer of the 1816 opera Seville born?"},
            "says 'this text'",
        ),
        (
            {"question": "In which town does the composer of the opera Seville (1816) live now?"},
            "",  # there is a date
        ),
        ({"answer": "Rome"}, "must be that of the last hop, 'Pesaro'"),
    ],
)
def test_a_question_is_refused(fields: dict[str, Any], complaint: str) -> None:
    wrong = found(composition(**fields))
    assert complaint in "; ".join(wrong)
    assert len(wrong) == bool(complaint)


@pytest.mark.parametrize(
    ("number", "fields", "complaint"),
    [
        (1, {"question": "Who composed it?"}, "hop 1: its question must name 'Seville (1816 opera)'"),
        (1, {"question": "Who composed #1 of the 1816 opera Seville?"}, "hop 1: its question must hold no # number"),
        (1, {"sentence": 1}, "hop 1: its answer 'Gioachino Rossini' is not in sentence 1 of passage 1"),
        (1, {"sentence": 3}, "hop 1: passage 1 has no sentence 3; they are numbered from 1 to 2"),
        (1, {"answer": "Rome"}, "hop 1: its answer must be 'Gioachino Rossini', which leads to passage 2"),
        (1, {"answer": "rossini"}, "not in sentence 2"),
        (1, {"paragraph": 2}, "the hops must use each passage once, in order, not 2, 2"),
        (2, {"question": "Where was the composer born?"}, "hop 2: its question must hold #1 and no other"),
        (2, {"question": "Where near Pesaro was #1 born?"}, "hop 2: its question gives away 'Pesaro'"),
        (2, {"answer": ""}, "hop 2: its answer must be a name"),
        (2, {"question": ""}, "hop 2: its question must be a sentence"),
    ],
)
def test_a_hop_is_refused(number: int, fields: dict[str, Any], complaint: str) -> None:
    assert complaint in "; ".join(found(with_hop(number, GOOD, **fields)))


def test_a_hop_may_find_the_name_in_other_words() -> None:
    text = OPERA._replace(text="It has two acts. Seville was composed by Rossini in Rome.")
    by_alias = with_hop(1, GOOD, answer="Rossini", aliases=["Gioachino Rossini"])
    assert found(by_alias, bridge(text, COMPOSER)) == []


def test_a_question_about_now_needs_a_date() -> None:
    asked = "In which town does the current composer of the opera Seville (1816) live?"
    assert found(composition(question=asked)) == []
    undated = OPERA._replace(title="Seville (opera)")
    wrong = found(
        with_hop(1, composition(question=asked.replace("1816", "opera")), question="Who composed the opera Seville?"),
        bridge(undated, COMPOSER),
    )
    assert wrong == ["the question says 'current' and no date"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"question": "Who died first, Gioachino Rossini or Donizetti?"}, "must name 'Gaetano Donizetti' in full"),
        ({"answer": "1848"}, "the answer must be one of them"),
        ({"question": "Of Gioachino Rossini and Gaetano Donizetti, who died first?"}, "must offer"),
        ({"question": "Who died in 1848, Gioachino Rossini or Gaetano Donizetti?"}, "gives away '1848'"),
    ],
)
def test_a_comparison_is_refused(fields: dict[str, Any], complaint: str) -> None:
    (wrong,) = found(compared(**fields), comparison())
    assert complaint in wrong


def test_a_comparison_takes_the_passages_in_any_order() -> None:
    swapped = compared(hops=[{**PAIR["hops"][1]}, {**PAIR["hops"][0]}])
    assert found(swapped, comparison()) == []


TOWER = Document("p1", "東京タワー", "東京タワーは内藤多仲が設計した。高さは333メートルである。")
DESIGNER = Document("p2", "内藤多仲", "内藤多仲は山梨県に生まれた。")
TOKYO = composition(
    hops=[hop("東京タワーを設計したのは誰か？", "内藤多仲", 1, 1), hop("#1はどこに生まれたか？", "山梨県", 2, 1)],
    question="東京タワーの設計者はどこに生まれた？",
    answer="山梨県",
)


def draft(first: Document, second: Document) -> Draft:
    return draft_of(chain("p1", "p2", mentions=[second.title]), 1, (first, second))


def test_a_script_without_spaces_has_good_and_bad_questions() -> None:
    asked = draft(TOWER, DESIGNER)
    assert found(TOKYO, asked) == []
    assert found({**TOKYO, "question": "塔の設計者はどこに生まれた？"}, asked) == [
        "the question must name '東京タワー' in full"
    ]
    assert found({**TOKYO, "question": "東京タワーの設計者は山梨県に生まれたか？"}, asked) == [
        "the question gives away '山梨県'"
    ]
    sense = TOWER._replace(title="東京タワー (映画)")
    assert found(with_hop(1, TOKYO, question="東京タワー"), draft(sense, DESIGNER))
    film = {**TOKYO, "question": "映画東京タワーの設計者はどこに生まれた？"}
    assert found(with_hop(1, film, question="映画の東京タワーを設計したのは誰か？"), draft(sense, DESIGNER)) == []


def test_a_question_may_end_in_another_mark() -> None:
    assert found(composition(question=GOOD["question"].replace("?", "؟"))) == []


@pytest.mark.parametrize("title", ["Sector #4", "Northwest passage", "the now", "They still sing"])
def test_a_title_may_say_what_a_question_may_not(title: str) -> None:
    opera = OPERA._replace(title=title)
    asked = composition(question=f"In which town was the composer of {title} born?")
    assert found(with_hop(1, asked, question=f"Who composed {title}?"), bridge(opera, COMPOSER)) == []
    worse = {**asked, "question": f"In which town of this text was the composer of {title} born, as of now?"}
    assert len(found(with_hop(1, worse, question=f"Who composed {title}?"), bridge(opera, COMPOSER))) == 2

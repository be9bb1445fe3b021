"""Decomposition by rules: the official one where there is one, else from what the source marks as gold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from stepsearch_data.schemas.rows import Evidence, Question, SubQuestion, SupportingParagraph
from stepsearch_data.stages.rules.verbalise import as_question, ask, fill, references
from stepsearch_data.text import contains, mentions, normalise

_COMPARISONS = ("comparison", "bridge_comparison")


@dataclass
class _Hop:
    """A hop before its place in the table is known. `template` may hold `#k`."""

    template: str
    answer: str
    passages: list[str]
    relation_form: str = ""
    extra_depends: list[int] = field(default_factory=list)


def decompose(question: Question) -> list[SubQuestion]:
    """The hops of an answerable question, in the order in which they can be searched."""
    if question.decomposition:
        method, hops = "official", _official(question)
    elif question.evidences:
        method, hops = "evidences", _from_evidences(question)
    elif question.question_type in _COMPARISONS:
        method, hops = "rules", _compare(question)
    else:
        method, hops = "rules", _bridge(question)
    return _number(question, hops, method)


def _number(question: Question, hops: Sequence[_Hop], method: str) -> list[SubQuestion]:
    answers = [hop.answer for hop in hops]
    return [
        SubQuestion(
            question_id=question.question_id,
            source=question.source,
            hop=number,
            hops=len(hops),
            sub_question=fill(hop.template, answers),
            template=hop.template,
            relation_form=hop.relation_form,
            sub_answer=hop.answer,
            depends_on=sorted({*references(hop.template), *hop.extra_depends}),
            gold_passage_ids=hop.passages,
            method=method,
        )
        for number, hop in enumerate(hops, start=1)
    ]


def _official(question: Question) -> list[_Hop]:
    return [
        _Hop(
            template=as_question(step.text),
            answer=step.answer,
            passages=[step.passage_id],
            relation_form=step.text if ">>" in step.text else "",
        )
        for step in question.decomposition
    ]


# --- 2WikiMultihopQA: evidence triples -------------------------------------------------------------


def _from_evidences(question: Question) -> list[_Hop]:
    """A hop a supporting paragraph, with the triples that it states, in the triples' order."""
    stated = _assign(question.evidences, question.supporting)
    paragraphs = sorted(question.supporting, key=lambda p: _first_place(question.evidences, stated[p.passage_id]))
    hops: list[_Hop] = []
    for paragraph in paragraphs:
        triples = stated[paragraph.passage_id]
        hops.append(_evidence_hop(question, paragraph, triples, [hop.answer for hop in hops]))
    return hops


def _evidence_hop(
    question: Question, paragraph: SupportingParagraph, triples: list[Evidence], earlier: list[str]
) -> _Hop:
    if not triples:
        return _Hop(_about(paragraph, question), _supporting_text(paragraph), [paragraph.passage_id])
    asked = [ask(_refer(triple.subject, earlier), triple.relation) for triple in triples]
    return _Hop(
        template=" ".join(asked),
        answer="; ".join(triple.object for triple in triples),
        passages=[paragraph.passage_id],
        relation_form="; ".join(f"{_refer(t.subject, earlier)} >> {t.relation}" for t in triples),
    )


def _refer(subject: str, earlier: list[str]) -> str:
    """`#k` when an earlier hop found the subject, else the subject."""
    for number, answer in enumerate(earlier, start=1):
        if normalise(answer) == normalise(subject):
            return f"#{number}"
    return subject


def _assign(evidences: Sequence[Evidence], paragraphs: Sequence[SupportingParagraph]) -> dict[str, list[Evidence]]:
    """Which paragraph states which triple: by likeness of title and subject, then by the object's mention."""
    stated: dict[str, list[Evidence]] = {paragraph.passage_id: [] for paragraph in paragraphs}

    def fit(paragraph: SupportingParagraph, triple: Evidence) -> tuple[float, bool, bool]:
        likeness = _overlap(_plain(paragraph.title), triple.subject)
        return likeness, not stated[paragraph.passage_id], mentions(paragraph.text, triple.object)

    for triple in evidences:
        best = max(paragraphs, key=lambda paragraph: fit(paragraph, triple))
        stated[best.passage_id].append(triple)
    return stated


def _first_place(evidences: Sequence[Evidence], triples: Sequence[Evidence]) -> int:
    return evidences.index(triples[0]) if triples else len(evidences)


def _overlap(one: str, other: str) -> float:
    """Share of common tokens (Jaccard) of two names."""
    a, b = set(normalise(one).split()), set(normalise(other).split())
    return len(a & b) / len(a | b) if a | b else 0.0


# --- HotpotQA and a user's own questions: supporting paragraphs only --------------------------------


def _compare(question: Question) -> list[_Hop]:
    """Independent look-ups, one a supporting paragraph, in the order in which the question names them."""
    places = {p.passage_id: _place(question.question, p) for p in question.supporting}
    paragraphs = sorted(question.supporting, key=lambda p: places[p.passage_id])
    return [_Hop(_about(p, question), _supporting_text(p), [p.passage_id]) for p in paragraphs]


def _bridge(question: Question) -> list[_Hop]:
    """A chain: each paragraph but the last leads to the entity that the next one is about."""
    chain = _order(question)
    hops = []
    for number, (paragraph, following) in enumerate(pairwise(chain), start=1):
        depends = [number - 1] if number > 1 else []
        start = f"#{number - 1}" if depends else _known_name(paragraph, question)
        asked = f"Which entity leads from {start} to the answer of: {question.question}"
        hops.append(_Hop(asked, _plain(following.title), [paragraph.passage_id], extra_depends=depends))
    last = chain[-1]
    if not hops:
        return [_Hop(question.question, question.answer, [last.passage_id])]
    asked = f"Knowing #{len(hops)}: {question.question}"
    return [*hops, _Hop(asked, question.answer, [last.passage_id])]


def _order(question: Question) -> list[SupportingParagraph]:
    """Two paragraphs are put in the order of reading; more keep the source's order."""
    one, *others = question.supporting
    if len(others) != 1:
        return list(question.supporting)
    other = others[0]
    return [one, other] if _lead(question, one, other) >= _lead(question, other, one) else [other, one]


def _lead(question: Question, first: SupportingParagraph, second: SupportingParagraph) -> int:
    """How much speaks for reading `first` before `second`."""
    return (
        2 * mentions(first.text, _plain(second.title))
        + 2 * contains(question.question, _plain(first.title))
        + 2 * (mentions(second.text, question.answer) and not mentions(first.text, question.answer))
        - 2 * (normalise(_plain(first.title)) == normalise(question.answer))
        + (_overlap(question.question, first.title) > _overlap(question.question, second.title))
    )


def _known_name(paragraph: SupportingParagraph, question: Question) -> str:
    """The paragraph's subject where the question names it; else what the question says of it is all there is."""
    name = _plain(paragraph.title)
    return name if contains(question.question, name) else "the question's first clue"


def _about(paragraph: SupportingParagraph, question: Question) -> str:
    name = _plain(paragraph.title)
    return f"What about {name} is needed to answer: {question.question}"


def _supporting_text(paragraph: SupportingParagraph) -> str:
    """The sentences marked as supporting facts; the whole paragraph where none is."""
    starts = [0, *paragraph.sentence_ends]
    sentences = [paragraph.text[starts[at] : starts[at + 1]].strip() for at in sorted(paragraph.supporting_sentences)]
    return " ".join(sentences) or paragraph.text


def _place(question: str, paragraph: SupportingParagraph) -> int:
    """Where the question names the paragraph's subject; behind its end where it does not."""
    at = normalise(question).find(normalise(_plain(paragraph.title)))
    return at if at >= 0 else len(question)


def _plain(title: str) -> str:
    """A title without Wikipedia's disambiguation: `Rusalka (opera)` → `Rusalka`."""
    return re.sub(r"\s*\([^()]*\)$", "", title) or title

"""Decomposition by rules: the official one where there is one, else from what the source marks as gold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from stepsearch_data.core.text import contains, mentions, normalise
from stepsearch_data.schemas.rows import Evidence, Question, SubQuestion, SupportingParagraph
from stepsearch_data.stages.rules.keywords import STOP_WORDS
from stepsearch_data.stages.rules.verbalise import as_question, ask, fill, references

_COMPARISONS = ("comparison", "bridge_comparison")


@dataclass(frozen=True)
class _Hop:
    """A hop before its place in the table is known. `template` holds `#k` where `question` holds an answer."""

    template: str
    question: str
    answer: str
    passages: list[str]
    depends: tuple[int, ...] = ()
    relation_form: str = ""


def decompose(question: Question) -> list[SubQuestion]:
    """Return the hops of a question, in the order in which they can be searched."""
    if question.decomposition:
        method, hops = "official", _official(question)
    elif question.evidences:
        method, hops = "evidences", _from_evidences(question)
    elif any(paragraph.queries for paragraph in question.supporting):
        method, hops = "queries", _given(question)
    elif question.question_type in _COMPARISONS:
        method, hops = "rules", _compare(question)
    else:
        method, hops = "rules", _bridge(question)
    return _number(question, hops, method)


def _number(question: Question, hops: Sequence[_Hop], method: str) -> list[SubQuestion]:
    return [
        SubQuestion(
            question_id=question.question_id,
            source=question.source,
            hop=number,
            hops=len(hops),
            sub_question=hop.question,
            template=hop.template,
            relation_form=hop.relation_form,
            sub_answer=hop.answer,
            depends_on=sorted(hop.depends),
            gold_passage_ids=hop.passages,
            method=method,
        )
        for number, hop in enumerate(hops, start=1)
    ]


def _official(question: Question) -> list[_Hop]:
    """Make hops of official steps. Every `#k` of an earlier step is a placeholder: another is part of a name."""
    answers = [step.answer for step in question.decomposition]
    hops: list[_Hop] = []
    for step in question.decomposition:
        template, depends = as_question(step.text), [k for k in references(step.text) if 0 < k <= len(hops)]
        relation_form = step.text if ">>" in step.text else ""
        asked = fill(template, answers, depends)
        gold = [step.passage_id] if step.passage_id else []  # an unanswerable twin lacks some
        hops.append(_Hop(template, asked, step.answer, gold, tuple(depends), relation_form))
    return hops


# --- Evidence triples -----------------------------------------------------------------------------


def _from_evidences(question: Question) -> list[_Hop]:
    """Make one hop per supporting paragraph, with the triples that it states, in the triples' order."""
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
        return _look_up(paragraph, question)
    sources = [_found_by(triple, earlier, question.evidences) for triple in triples]
    shown = [f"#{hop}" if hop else triple.subject for hop, triple in zip(sources, triples, strict=True)]
    known = [earlier[hop - 1] if hop else triple.subject for hop, triple in zip(sources, triples, strict=True)]
    relations = [triple.relation for triple in triples]
    return _Hop(
        template=" ".join(map(ask, shown, relations)),
        question=" ".join(map(ask, known, relations)),
        answer="; ".join(triple.object for triple in triples),
        passages=[paragraph.passage_id],
        depends=tuple({hop for hop in sources if hop}),
        relation_form="; ".join(f"{subject} >> {relation}" for subject, relation in zip(shown, relations, strict=True)),
    )


def _found_by(triple: Evidence, earlier: list[str], evidences: Sequence[Evidence]) -> int:
    """Return the earlier hop (from 1) that found the subject, also by another name, or 0 where none did."""
    same = {e.object for e in evidences if e.object_id and e.object_id == triple.subject_id}
    names = {normalise(name) for name in (triple.subject, *same)}
    return next((hop for hop, answer in enumerate(earlier, start=1) if normalise(answer) in names), 0)


def _assign(evidences: Sequence[Evidence], paragraphs: Sequence[SupportingParagraph]) -> dict[str, list[Evidence]]:
    """Assign each triple to a paragraph, by overlap of title and subject, then by mention of the object."""
    stated: dict[str, list[Evidence]] = {paragraph.passage_id: [] for paragraph in paragraphs}

    def fit(paragraph: SupportingParagraph, triple: Evidence) -> tuple[float, bool, bool]:
        overlap = _overlap(_plain(paragraph.title), triple.subject)
        return overlap, not stated[paragraph.passage_id], mentions(paragraph.text, triple.object)

    for triple in evidences:
        best = max(paragraphs, key=lambda paragraph: fit(paragraph, triple))
        stated[best.passage_id].append(triple)
    return stated


def _first_place(evidences: Sequence[Evidence], triples: Sequence[Evidence]) -> int:
    return evidences.index(triples[0]) if triples else len(evidences)


def _overlap(one: str, other: str) -> float:
    """Return the share of common tokens (Jaccard) of two names."""
    a, b = set(normalise(one).split()), set(normalise(other).split())
    return len(a & b) / len(a | b) if a | b else 0.0


# --- The StepSearch release: one paragraph with queries per sub-question, whose text is not there ------


def _given(question: Question) -> list[_Hop]:
    """Make one hop per paragraph, in the source's order. Its first query is used as the sub-question."""
    hops: list[_Hop] = []
    for at, paragraph in enumerate(question.supporting, start=1):
        asked = paragraph.queries[0] if paragraph.queries else _look_up(paragraph, question).question
        template = asked
        for hop, earlier in enumerate(hops, start=1):
            template = re.sub(rf"(?<!\w){re.escape(earlier.answer)}(?!\w)", f"#{hop}", template)
        depends = set(references(template)) - set(references(asked))
        last = at == len(question.supporting)
        answer = question.answer if last else _handed_on(question, paragraph, question.supporting[at:])
        hops.append(_Hop(template, asked, answer, [paragraph.passage_id], tuple(depends)))
    return hops


def _handed_on(question: Question, paragraph: SupportingParagraph, later: Sequence[SupportingParagraph]) -> str:
    """Return a paragraph's answer for a later hop: new words of that hop's queries, its title, or all that it says."""
    said = set(normalise(paragraph.text).split())
    said -= set(normalise(" ".join((question.question, *paragraph.queries))).split())
    for following in later:
        runs = (run for query in following.queries for run in _runs(query, said) if contains(paragraph.text, run))
        name = max(runs, key=lambda run: (any(map(str.isupper, run)), len(run)), default=_plain(following.title))
        if mentions(paragraph.text, name):
            return name
    return _supporting_text(paragraph)


def _runs(query: str, known: Collection[str]) -> Iterator[str]:
    """Yield runs of adjacent known words of the query, except runs of only stop words."""
    words = [word.strip('?!.,;:"()[]').removesuffix("'s") for word in query.split()]
    for is_known, run in groupby(words, key=lambda word: normalise(word) in known):
        found = list(run)
        if is_known and not STOP_WORDS.issuperset(map(str.lower, found)):
            yield " ".join(found)


# --- HotpotQA and a user's own questions: supporting paragraphs only --------------------------------


def _compare(question: Question) -> list[_Hop]:
    """Make one independent hop per supporting paragraph, in the order in which the question names them."""
    paragraphs = sorted(question.supporting, key=lambda paragraph: _place(question.question, paragraph))
    return [_look_up(paragraph, question) for paragraph in paragraphs]


def _bridge(question: Question) -> list[_Hop]:
    """Make a chain of hops: each paragraph except the last leads to the entity that the next one is about."""
    chain = _order(question)
    hops: list[_Hop] = []
    for paragraph, following in pairwise(chain):
        start = hops[-1].answer if hops else _known_name(paragraph, question)
        template, asked = (
            f"Which entity leads from {name} to the answer of: {question.question}"
            for name in (f"#{len(hops)}" if hops else start, start)
        )
        hops.append(_Hop(template, asked, _plain(following.title), [paragraph.passage_id], _last_of(hops)))
    if not hops:
        return [_Hop(question.question, question.question, question.answer, [chain[-1].passage_id])]
    template, asked = (f"Knowing {name}: {question.question}" for name in (f"#{len(hops)}", hops[-1].answer))
    return [*hops, _Hop(template, asked, question.answer, [chain[-1].passage_id], _last_of(hops))]


def _last_of(hops: Sequence[_Hop]) -> tuple[int, ...]:
    return (len(hops),) if hops else ()


def _order(question: Question) -> list[SupportingParagraph]:
    """Put two paragraphs in the order of reading. More keep the source's order."""
    one, *others = question.supporting
    if len(others) != 1:
        return list(question.supporting)
    other = others[0]
    return [one, other] if _lead(question, one, other) >= _lead(question, other, one) else [other, one]


def _lead(question: Question, first: SupportingParagraph, second: SupportingParagraph) -> int:
    """Score the evidence for reading `first` before `second`."""
    return (
        2 * mentions(first.text, _plain(second.title))
        + 2 * contains(question.question, _plain(first.title))
        + 2 * (mentions(second.text, question.answer) and not mentions(first.text, question.answer))
        - 2 * (normalise(_plain(first.title)) == normalise(question.answer))
        + (_overlap(question.question, first.title) > _overlap(question.question, second.title))
    )


def _known_name(paragraph: SupportingParagraph, question: Question) -> str:
    """Return the paragraph's subject where the question names it, else a general phrase."""
    name = _plain(paragraph.title)
    return name if contains(question.question, name) else "the question's first clue"


def _look_up(paragraph: SupportingParagraph, question: Question) -> _Hop:
    """Make a hop that needs no other: what the paragraph says towards the answer."""
    asked = f"What about {_plain(paragraph.title)} is needed to answer: {question.question}"
    return _Hop(asked, asked, _supporting_text(paragraph), [paragraph.passage_id])


def _supporting_text(paragraph: SupportingParagraph) -> str:
    """Return the sentences marked as supporting facts, or the whole paragraph where none is."""
    starts = [0, *paragraph.sentence_ends]
    sentences = [paragraph.text[starts[at] : starts[at + 1]].strip() for at in sorted(paragraph.supporting_sentences)]
    return " ".join(sentences) or paragraph.text


def _place(question: str, paragraph: SupportingParagraph) -> int:
    """Return where the question names the paragraph's subject, or its length where it does not."""
    at = normalise(question).find(normalise(_plain(paragraph.title)))
    return at if at >= 0 else len(question)


def _plain(title: str) -> str:
    """Return a title without Wikipedia's disambiguation: `Rusalka (opera)` → `Rusalka`."""
    return re.sub(r"\s*\([^()]*\)$", "", title) or title

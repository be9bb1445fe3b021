"""Queries by rules: keyword forms of a sub-question that retrieve well and leak no answer.

A query is made of the words of the question, of its sub-question and of the answers of earlier
hops. The gold paragraph only decides which of these words are kept (method `matched`), never adds one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

from stepsearch_data.core.text import contains, normalise, tokens
from stepsearch_data.schemas.rows import Query, Question, SubQuestion, SupportingParagraph
from stepsearch_data.stages.rules.leaks import forbidden, leaked
from stepsearch_data.stages.rules.verbalise import fill, split_relation

# fmt: off
STOP_WORDS = frozenset((
    "a", "also", "an", "and", "are", "as", "at", "be", "been", "being", "but", "by", "can", "could", "did", "do",
    "does", "for", "from", "had", "has", "have", "he", "her", "hers", "him", "his", "how", "i", "if", "in", "into",
    "is", "it", "its", "itself", "may", "me", "might", "more", "most", "my", "no", "nor", "not", "of", "on", "or",
    "other", "our", "out", "over", "own", "same", "she", "should", "so", "some", "such", "than", "that", "the",
    "their", "them", "then", "there", "these", "they", "this", "those", "through", "to", "too", "under", "until",
    "up", "very", "was", "we", "were", "what", "when", "where", "which", "while", "who", "whom", "whose", "why",
    "will", "with", "would", "you", "your",
))
# fmt: on
"""English function words, which say little without other words."""


def write_queries(question: Question, hops: Sequence[SubQuestion], hop: SubQuestion, count: int) -> list[Query]:
    """Write at most `count` distinct queries for a hop, none of which leaks."""
    return numbered(hop, _choose(_candidates(question, hops, hop), question, hops, hop, count))


def given_queries(question: Question, hops: Sequence[SubQuestion], hop: SubQuestion, count: int) -> list[Query]:
    """Return at most `count` of the source's own queries for a hop's gold paragraphs, without those that leak."""
    gold = (paragraph for paragraph in question.supporting if paragraph.passage_id in hop.gold_passage_ids)
    given = (("given", query) for paragraph in gold for query in paragraph.queries)
    return numbered(hop, _choose(given, question, hops, hop, count))


def _choose(
    candidates: Iterable[tuple[str, str]],
    question: Question,
    hops: Sequence[SubQuestion],
    hop: SubQuestion,
    count: int,
) -> Iterable[tuple[str, str]]:
    """Return the first distinct candidates that do not leak."""
    secrets = forbidden(hops, hop.hop, (question.answer, *question.answer_aliases))
    chosen: dict[str, tuple[str, str]] = {}
    for method, text in candidates:
        key = normalise(text)
        if key and key not in chosen and not leaked(text, question.question, secrets):
            chosen[key] = (method, text)
        if len(chosen) == count:
            break
    return chosen.values()


def numbered(hop: SubQuestion, written: Iterable[tuple[str, str]]) -> list[Query]:
    """Make the queries of a hop from (method, text) pairs, in order."""
    return [
        Query(
            query_id=f"{hop.question_id}/{hop.hop}/{n}",
            question_id=hop.question_id,
            hop=hop.hop,
            n=n,
            query=text,
            method=method,
        )
        for n, (method, text) in enumerate(written, start=1)
    ]


def _candidates(question: Question, hops: Sequence[SubQuestion], hop: SubQuestion) -> Iterator[tuple[str, str]]:
    """Yield forms of a query, the most specific first."""
    gold = [p for p in question.supporting if p.passage_id in hop.gold_passage_ids]
    held = {token for paragraph in gold for token in tokens(f"{paragraph.title} {paragraph.text}")}
    asked = keywords(question.question)
    known = [word for earlier in hops[: hop.hop - 1] for word in keywords(earlier.sub_answer)]
    if hop.method == "rules":
        found = [hops[number - 1].sub_answer for number in hop.depends_on]
        names = found or [_named(question.question, paragraph) for paragraph in gold]
        yield from _from_names(" ".join(names), asked, held)
    else:
        yield from _from_sub_question(hop, [earlier.sub_answer for earlier in hops], held)
        known += keywords(hop.sub_question)
    yield "all_matched", " ".join(_matched(_distinct([*known, *asked]), held))
    yield "question_matched", " ".join(_matched(asked, held))
    yield "sub_question", hop.sub_question if hop.method != "rules" else ""
    yield "question_keywords", " ".join(asked)
    yield "question", question.question.strip()
    for end in range(len(asked) - 1, 0, -1):
        yield "question_start", " ".join(asked[:end])


def _from_names(name: str, asked: list[str], held: AbstractSet[str]) -> Iterator[tuple[str, str]]:
    named = keywords(name)
    yield "name_matched", " ".join([name, *_distinct([*named, *_matched(asked, held)])[len(named) :]])
    yield "name", name
    yield "name_keywords", " ".join([name, *_distinct([*named, *asked])[len(named) :]])


def _from_sub_question(hop: SubQuestion, answers: list[str], held: AbstractSet[str]) -> Iterator[tuple[str, str]]:
    words = keywords(hop.sub_question)
    parts = split_relation(fill(hop.relation_form.partition("; ")[0], answers, hop.depends_on))
    if parts:
        subject, relation = parts
        yield "subject_relation", f"{subject} {relation}"
        yield "subject", subject
    yield "sub_question_keywords", " ".join(words)
    yield "sub_question_matched", " ".join(_matched(words, held))


def _named(question: str, paragraph: SupportingParagraph) -> str:
    """Return the paragraph's title as far as the question names it."""
    if contains(question, paragraph.title):
        return paragraph.title
    asked = set(normalise(question).split())
    return " ".join(word for word in keywords(paragraph.title) if _normalised(word) in asked)


def _matched(words: list[str], held: AbstractSet[str]) -> list[str]:
    """Return the words of which the gold paragraphs hold a part. `held` are the tokens of these paragraphs."""
    return [word for word in words if not held.isdisjoint(_tokens(word))]


def keywords(text: str) -> list[str]:
    """Return a text's distinct words in order, without stop words, outer punctuation and possessive endings."""
    return _distinct([word for word in map(_keyword, text.split()) if word])


def _distinct(words: list[str]) -> list[str]:
    """Return each word once, in the form and place of its first occurrence."""
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(_normalised(word), word)
    return list(first.values())


# Questions repeat the same words, so what is computed for one word is kept.

_normalised = lru_cache(maxsize=1 << 14)(normalise)
_tokens = lru_cache(maxsize=1 << 14)(tokens)


@lru_cache(maxsize=1 << 14)
def _keyword(word: str) -> str:
    """Return a word without outer punctuation and possessive ending, or "" for a stop word."""
    word = word.strip("?!.,;:\"“”‘’'()[]").removesuffix("'s").removesuffix("’s")
    return word if _normalised(word) and word.lower() not in STOP_WORDS else ""

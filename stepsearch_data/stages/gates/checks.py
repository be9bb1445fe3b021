"""The gates that check one trajectory: alone, against evaluation data, and against its source's usual lengths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepsearch_data.core.lazy import Lazy
from stepsearch_data.core.text import facts, mentions, normalise
from stepsearch_data.pipeline.questions import QuestionRows
from stepsearch_data.schemas.rows import Question, Round, SubQuestion, Verdict, Vote
from stepsearch_data.schemas.tables import QUESTIONS, ROUNDS, SUB_QUESTIONS, VOTES, Inputs
from stepsearch_data.stages.gates.config import Finding, QualityConfig
from stepsearch_data.stages.gates.outside import EvalData, digest, single_hops
from stepsearch_data.stages.rules import STOP_WORDS, forbidden, leaked

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")

Lengths = dict[tuple[str, str], tuple[float, float]]
"""Shortest and longest usual length in characters, by kind of text and source."""

_PLACEHOLDER = re.compile(r"#(\d{1,2})\b")
_HALF = 0.5
_TO_SIGMA = 1.4826  # median absolute deviation → standard deviation, for a normal distribution
_LEAST = 0.2  # of log length: texts made by one template differ so little that any other would be an outlier
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_MOJIBAKE = re.compile(r"[ÃÂ][\u0080-\u00bf]|â€[\u0080-\u2122]|ï»¿|Ã[ƒ‚„…†‡ˆ‰Š‹Œ]")
_FEWEST_CHARACTERS = 12  # below, the share of letters says nothing: `1990-91?` is no broken text
_FEWEST_WORDS = 6  # below, an English text may well do without a stop word
_NO_ASCII_LETTERS = bytes(code for code in range(0x80) if not chr(code).isalpha())
_NO_LETTER = re.compile(r"[\W\d_]+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


@dataclass(frozen=True)
class Case:
    """A trajectory with all that is said about it. `hops` are those that were searched."""

    question: Question
    hops: Sequence[SubQuestion]
    rounds: Sequence[Round]
    votes: Sequence[Vote]

    @classmethod
    def of(cls, rows: QuestionRows) -> Case:
        """Make a case from the rows of a question that has rounds."""
        rounds = rows[ROUNDS]
        searched = {step.hop for step in rounds}
        hops = [hop for hop in rows[SUB_QUESTIONS] if hop.hop in searched]
        return cls(rows.question, hops, rounds, rows[VOTES])


def own_findings(case: Case, config: QualityConfig) -> Iterator[Finding]:
    """Yield what is wrong with a trajectory alone, also for gates that are off."""
    yield from _placeholders(case)
    yield from _leaks(case)
    yield from _answers(case)
    yield from _repeats(case)
    yield from _gold(case)
    yield from _texts(case, config)


def eval_findings(question: Question, known: EvalData) -> Iterator[Finding]:
    """Yield what a question shares with the evaluation data."""
    if known.questions:
        yield from _overlaps(question, known)
    used = [number for number in single_hops(question) if number in known.single_hops]
    if used:
        yield Finding("eval_single_hop", f"made of the evaluation data's single-hop question {used[0]}")


def _overlaps(question: Question, known: EvalData) -> Iterator[Finding]:
    if digest(question.question) in known.questions:
        yield Finding("eval_overlap", "the question is in the evaluation data")
    for gold in question.supporting:
        if digest(f"{gold.title} {gold.text}") in known.paragraphs:
            yield Finding("eval_overlap", f"a gold paragraph of the evaluation data: {gold.title}")


def verdict_findings(verdicts: Sequence[Verdict]) -> Iterator[Finding]:
    """Yield why a question has not passed its checks."""
    for verdict in verdicts:
        if not verdict.passed:
            yield Finding("unproven", f"fails {verdict.first_failed}" if verdict.first_failed else "not fully checked")


def length_findings(case: Case, lengths: Lengths) -> Iterator[Finding]:
    """Yield the texts that are far longer or shorter than those of the same source."""
    source = case.question.source
    texts = [("question", case.question.question), *(("sub-question", hop.sub_question) for hop in case.hops)]
    texts += [("paragraph", gold.text) for gold in case.question.supporting]
    for kind, text in texts:
        low, high = lengths[kind, source]
        if not low <= len(text) <= high:
            yield Finding("length", f"a {kind} of {len(text)} characters; {low:.0f} to {high:.0f} are usual")


def usual_lengths(inputs: Inputs, spread: float) -> Lengths:
    """Return the median of the log lengths ± `spread` robust standard deviations, at least 0.2 each."""
    questions = pl.scan_parquet(inputs[QUESTIONS], glob=False)
    hops = pl.scan_parquet(inputs[SUB_QUESTIONS], glob=False)
    gold = pl.col("supporting").list.eval(pl.element().struct.field("text").str.len_chars())
    lengths = {
        "question": questions.select("source", n=pl.col("question").str.len_chars()),
        "sub-question": hops.select("source", n=pl.col("sub_question").str.len_chars()),
        "paragraph": questions.select("source", n=gold).explode("n").drop_nulls(),
    }
    return {
        (kind, source): (low, high)
        for kind, frame in lengths.items()
        for source, low, high in _bounds(frame.collect(engine="streaming").lazy(), spread)  # without holding the texts
    }


def _bounds(lengths: pl.LazyFrame, spread: float) -> list[tuple[str, float, float]]:
    logs = lengths.select("source", log=pl.col("n").log())
    middle = logs.with_columns(middle=pl.col("log").median().over("source"))
    deviation = (pl.col("log") - pl.col("middle")).abs().median() * _TO_SIGMA
    room = pl.max_horizontal(deviation, pl.lit(_LEAST)) * spread
    found = middle.group_by("source").agg(pl.col("middle").first(), room=room)
    bounds = found.select(
        "source", (pl.col("middle") - pl.col("room")).exp(), high=pl.sum_horizontal("middle", "room").exp()
    )
    return list(bounds.collect().iter_rows())


def _placeholders(case: Case) -> Iterator[Finding]:
    """Find `#k` of a hop of the question, unless the data itself says it, as in "the #1 hit"."""
    own = [case.question.question, *(f"{gold.title} {gold.text}" for gold in case.question.supporting)]
    for text in (*(hop.sub_question for hop in case.hops), *(q for step in case.rounds for q in _queries(step))):
        if "#" in text:
            said = {number for held in own for number in _PLACEHOLDER.findall(held)}
            left = [n for n in _PLACEHOLDER.findall(text) if n not in said and 1 <= int(n) <= case.question.hops]
            if left:
                yield Finding("placeholder", f"#{left[0]} in: {text}")


def _queries(step: Round) -> list[str]:
    return [step.query, *step.alternatives]


def _leaks(case: Case) -> Iterator[Finding]:
    answers = (case.question.answer, *case.question.answer_aliases)
    for step in case.rounds:
        secrets = forbidden(case.hops, step.hop, answers)
        for query in _queries(step):
            said = leaked(query, case.question.question, secrets)
            if said:
                yield Finding("leak", f"a query of hop {step.hop} says {said[0]!r}: {query}")


def _answers(case: Case) -> Iterator[Finding]:
    texts = {gold.passage_id: f"{gold.title} {gold.text}" for gold in case.question.supporting}
    for hop in case.hops:
        text = " ".join(texts.get(passage_id, "") for passage_id in hop.gold_passage_ids)
        missing = [part for part in facts(hop.sub_answer) if text and not _holds(text, part)]
        if missing:
            yield Finding("answer_not_in_paragraph", f"hop {hop.hop}: {missing[0][:100]!r} is not in its paragraph")


def _holds(text: str, answer: str) -> bool:
    """Tell whether the text holds the answer, or half of its words, as titles and dates are often written otherwise."""
    words = normalise(answer).split()
    if answer.lower() in ("yes", "no") or not words or mentions(text, answer):
        return True
    held = set(normalise(text).split())
    return sum(word in held for word in words) >= _HALF * len(words)


def _repeats(case: Case) -> Iterator[Finding]:
    whole = normalise(case.question.question)
    for hop in case.hops:
        if case.question.hops > 1 and normalise(hop.sub_question) == whole:
            yield Finding("sub_question_is_question", f"hop {hop.hop} asks the whole question")


def _gold(case: Case) -> Iterator[Finding]:
    for step in case.rounds:
        if step.role != "gold":
            continue
        if all(vote.gold_rank is None for vote in case.votes if vote.hop == step.hop):
            yield Finding("gold_not_found", f"no engine finds a gold passage of hop {step.hop}")
        if not step.kept or step.gold_rank is None:
            what = "shows no gold passage" if step.kept else "has no kept query"
            yield Finding("gold_not_shown", f"round {step.round} {what}")


def _texts(case: Case, config: QualityConfig) -> Iterator[Finding]:
    texts: Mapping[str, str] = {
        "the question": case.question.question,
        "the answer": case.question.answer,
        **{f"sub-question {hop.hop}": hop.sub_question for hop in case.hops},
        **{f"paragraph {gold.title!r}": gold.text for gold in case.question.supporting},
    }
    for name, text in texts.items():
        fault = broken(text, config.min_letters if name != "the answer" else 0)
        if fault:
            yield Finding("broken_text", f"{name} {fault}")
        doubt = not_english(text, config.min_stop_words) if name != "the answer" else ""
        if doubt:
            yield Finding("not_english", f"{name} {doubt}")


def broken(text: str, min_letters: float) -> str:
    """Return in words why a text is broken, or "" where it is not."""
    if "\ufffd" in text:
        return "holds a replacement character"
    control = None if text.isprintable() else _CONTROL.search(text)  # printable is most text, and found out faster
    if control:
        return f"holds the control character U+{ord(control[0]):04X}"
    garbled = None if text.isascii() else _MOJIBAKE.search(text)
    if garbled:
        return f"holds {garbled[0]!r}, UTF-8 read as another encoding"
    visible, letters = len("".join(text.split())), _letters(text)
    if visible >= _FEWEST_CHARACTERS and letters < min_letters * visible:
        return f"is {letters / visible:.0%} letters"
    return ""


def _letters(text: str) -> int:
    if text.isascii():
        return len(text.encode().translate(None, _NO_ASCII_LETTERS))
    return len(_NO_LETTER.sub("", text))


def not_english(text: str, min_stop_words: float) -> str:
    """Return in words why a text is not English, or "" where it may be.

    A heuristic: the share of about a hundred English function words, which other languages hardly use.
    Short texts count as English. Long lists of names may be flagged by mistake.
    """
    words = _WORD.findall(text.lower())
    stop_words = sum(map(STOP_WORDS.__contains__, words))
    if len(words) >= _FEWEST_WORDS and stop_words < min_stop_words * len(words):
        return f"has {stop_words} English stop words among {len(words)} words"
    return ""

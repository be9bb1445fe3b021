"""A deterministic synthetic world, as MuSiQue-Ans v1.0 rows.

People, cities, songs and so on have synthetic names. Every (entity, relation) pair is a fact with
one value, and every fact is one paragraph titled by its subject. Hardly anything is stored: fact
number n belongs to a repeating cycle of entity kinds, so its subject, value, names and text follow
from (seed, n) by arithmetic and small keyed random streams. A question is a walk over these facts.
Shapes that join two branches add a fact about a pair of entities with its own paragraph.

A file holds exactly `paragraphs` distinct paragraphs if its distractor places, the sum of
(per_question - hops), can hold them; otherwise as many as fit. Up to half of a question's
distractors have its entities or relations. The others come from a shuffle of all facts, unused ones first.
"""

import gzip
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import NamedTuple

import orjson

from stepsearch_data.core.atomic import writing
from stepsearch_data.synth.vocabulary import ADJECTIVES, FILLERS, NAMES, SYLLABLES, THINGS, Frame, Relation

HOPS = {"2hop": 2, "3hop1": 3, "3hop2": 3, "4hop1": 4, "4hop2": 4, "4hop3": 4}
JOINS = {"3hop2": (1, 0), "4hop2": (1, 1), "4hop3": (2, 0)}  # steps to the left, after the join
TRIES = 2000
SUFFIXES = ("", ".jsonl", ".json")  # of a file to write, before any .gz
# A world of n cycles has at least this many chains times n, and this many pairs times n squared.
CHAINS = {"2hop": 85, "3hop1": 190, "4hop1": 340}
PAIRS = 7
RELATION_FORM = 0.5  # the share of steps asked as "Song >> performer"


class Fact(NamedTuple):
    """Fact number n: its subjects and its value are entities, by number."""

    number: int
    relation: Relation
    subjects: tuple[int, ...]
    object: int


@dataclass(frozen=True)
class WorldConfig:
    """Size and composition of a world. Raises ValueError for an impossible one."""

    questions: int = 200
    paragraphs: int | None = None  # of the whole world; by default about 5.6 per question
    seed: int = 0
    per_question: int = 20
    sentences: int = 4  # the fact and filler; 1 is the fact alone, 0 a note in the words of the questions
    shapes: tuple[str, ...] = tuple(HOPS)
    kinds: tuple[str, ...] = tuple(NAMES)  # of entities: fewer make a world with fewer relations, of chains only

    def __post_init__(self) -> None:
        if self.questions < 1 or self.sentences < 0:
            raise ValueError("questions must be at least 1 and sentences at least 0")
        if not self.shapes or not set(self.shapes) <= HOPS.keys():
            raise ValueError(f"shapes must be some of {', '.join(HOPS)}, not {self.shapes!r}")
        if len(self.kinds) < len(NAMES) and not set(self.shapes) <= CHAINS.keys():
            raise ValueError(f"a world of some kinds only has no shapes but {', '.join(CHAINS)}")
        if not all(self.frame.walks(HOPS[shape]) for shape in self.shapes):
            raise ValueError(f"the kinds {', '.join(self.kinds)} have too few relations among them")
        if self.per_question < max(HOPS.values()):
            raise ValueError(f"per_question must be at least 4, not {self.per_question}")
        if self.size < self.minimum:
            need = f"{self.questions} questions need at least {self.minimum} paragraphs"
            raise ValueError(f"{need}, not {self.size}")

    @cached_property
    def frame(self) -> Frame:
        """Return the kinds of entities and their relations."""
        return Frame(self.kinds)

    @property
    def counts(self) -> Counter[str]:
        """Return how many questions each shape has."""
        step = len(self.shapes)
        turns = ((shape, range(i, self.questions, step)) for i, shape in enumerate(self.shapes))
        return sum((Counter({shape: len(turn)}) for shape, turn in turns), Counter())

    @property
    def pairs(self) -> int:
        """Return how many questions join two branches, each with its own pair paragraph."""
        return sum(self.counts[shape] for shape in JOINS)

    @property
    def minimum(self) -> int:
        """Return the smallest number of paragraphs that is always enough for this many questions."""
        full = Frame()
        most = {s: n * self.frame.walks(HOPS[s]) // full.walks(HOPS[s]) for s, n in CHAINS.items()}
        chains = (math.ceil(self.counts[shape] / max(1, most[shape])) for shape in CHAINS)
        cycles = max(1, math.ceil(math.sqrt(self.pairs / PAIRS)), *chains)
        return self.pairs + max(self.per_question, cycles * len(self.frame.facts))

    @property
    def size(self) -> int:
        """Return the number of paragraphs of the world."""
        if self.paragraphs is not None:
            return self.paragraphs
        return max(round(5.6 * self.questions), self.minimum + 2 * len(self.frame.facts))


class _World:
    """Facts by number, single ones before those of pairs, and which of them were already used."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.frame = config.frame
        self.singles = config.size - config.pairs
        self.cycles = self.singles // len(self.frame.facts)
        self.pairs: list[Fact] = []
        self.paired: set[frozenset[int]] = set()
        self.asked: set[tuple[object, ...]] = set()
        self.seen = bytearray(self.singles)
        self.unseen = self.singles
        self.slots = sum(n * (config.per_question - HOPS[s]) for s, n in config.counts.items())
        rng = self.rng("world")
        self.cursor = 0
        self.order = list(range(self.singles))
        rng.shuffle(self.order)
        entities = (self.cycles + 1) * len(self.frame.cycle)
        self.syllables = max(3, math.ceil(math.log(2 * entities, len(SYLLABLES))))
        self.words = rng.sample(range(len(SYLLABLES) ** self.syllables), entities)

    def rng(self, *key: str | int) -> Random:
        return Random("/".join(map(str, (self.config.seed, *key))))

    def name(self, entity: int) -> str:
        ending, *forms = NAMES[self.frame.cycle[entity % len(self.frame.cycle)]].split("|")
        word, code = "", self.words[entity]
        for _ in range(self.syllables):
            code, digit = divmod(code, len(SYLLABLES))
            word += SYLLABLES[digit]
        return forms[entity // len(self.frame.cycle) % len(forms)].format(word.capitalize() + ending)

    def entity(self, kind: str, rng: Random) -> int:
        return rng.randrange(self.cycles) * len(self.frame.cycle) + rng.choice(self.frame.places[kind])

    def fact(self, number: int) -> Fact:
        if number >= self.singles:
            return self.pairs[number - self.singles]
        cycle, place = divmod(number, len(self.frame.facts))
        slot, relation = self.frame.facts[place]
        subject = value = cycle * len(self.frame.cycle) + slot
        rng = self.rng("fact", number)
        while value == subject:
            value = self.entity(relation.object, rng)
        return Fact(number, relation, (subject,), value)

    def about(self, entity: int) -> range:
        """Return the numbers of the single facts with this subject."""
        cycle, slot = divmod(entity, len(self.frame.cycle))
        first = cycle * len(self.frame.facts) + self.frame.first[slot]
        return range(first, min(first + len(self.frame.of_kinds.get((self.frame.cycle[slot],), ())), self.singles))

    def paragraph(self, number: int) -> tuple[str, str]:
        fact = self.fact(number)
        names = [self.name(subject) for subject in fact.subjects]
        rng = self.rng("text", number)
        value = self.name(fact.object)
        if not self.config.sentences:
            noun = fact.relation.noun.format(*names)
            return fact.relation.title.format(*names), f"{noun[0].upper()}{noun[1:]}: {value}."
        lines = self.filler(rng, self.config.sentences - 1)
        told = fact.relation.fact.format(*names, o=value)
        lines.insert(rng.randrange(len(lines) + 1), told)
        return fact.relation.title.format(*names), " ".join(lines)

    def filler(self, rng: Random, count: int) -> list[str]:
        lines, first = [], rng.randrange(len(FILLERS))
        for i in range(first, first + 5 * count, 5):
            a, b, t = rng.choice(ADJECTIVES), rng.choice(ADJECTIVES), rng.choice(THINGS)
            n, y = rng.randrange(3, 900), rng.randrange(1750, 2015)
            lines.append(FILLERS[i % len(FILLERS)].format(a=a, b=b, t=t, n=n, y=y))
        return lines

    def wander(self, facts: list[Fact], hops: int, rng: Random) -> list[Fact]:
        """Add this many facts, each about the value of the one before."""
        for _ in range(hops):
            choice = self.about(facts[-1].object) if facts else range(self.singles)
            facts = [*facts, self.fact(rng.choice(choice))]
        return facts

    def join(self, shape: str, rng: Random) -> list[Fact]:
        """Draw two branches, a new fact about the pair of their ends and the facts after it, or nothing."""
        hops, after = JOINS[shape]
        left, right = self.wander([], hops, rng), self.wander([], 1, rng)
        ends = (left[-1].object, right[-1].object)
        relations = self.frame.of_kinds.get((left[-1].relation.object, right[-1].relation.object))
        if relations is None or frozenset(ends) in self.paired:
            return []
        relation = rng.choice(relations)
        number = self.singles + len(self.pairs)
        pair = Fact(number, relation, ends, self.entity(relation.object, rng))
        return [*left, *right, *self.wander([pair], after, rng)]

    def draw(self, shape: str, rng: Random) -> list[Fact]:
        """Draw the facts of a new question without a repeated entity."""
        for _ in range(TRIES):
            chain = shape in CHAINS
            facts = self.wander([], HOPS[shape], rng) if chain else self.join(shape, rng)
            key = (shape, *(fact.number for fact in facts))
            entities = {e for fact in facts for e in (*fact.subjects, fact.object)}
            if key in self.asked or len(entities) != HOPS[shape] + (1 if chain else 2):
                continue
            self.asked.add(key)
            for fact in facts:
                if fact.number >= self.singles:
                    self.pairs.append(fact)
                    self.paired.add(frozenset(fact.subjects))
            return facts
        raise ValueError(f"found no further {shape} question: raise paragraphs")

    def close(self, facts: list[Fact], rng: Random) -> list[int]:
        """Return facts about the same entities or of the same relations, as hard distractors."""
        near = {n for f in facts for entity in (*f.subjects, f.object) for n in self.about(entity)}
        for fact in facts * 3:
            if fact.number >= self.singles:
                near.add(self.singles + rng.randrange(len(self.pairs)))
            else:
                near.add(rng.randrange(self.cycles) * len(self.frame.facts) + fact.number % len(self.frame.facts))
        found = sorted(near - {fact.number for fact in facts})
        rng.shuffle(found)
        return found

    def mark(self, number: int) -> None:
        if number < self.singles and not self.seen[number]:
            self.seen[number] = 1
            self.unseen -= 1

    def walk(self, taken: list[int]) -> int:
        """Return the next fact of the shuffle, an unused one while there are any."""
        while True:
            number = self.order[self.cursor % self.singles]
            self.cursor += 1
            if number not in taken and not (self.unseen and self.seen[number]):
                return number

    def gather(self, facts: list[Fact], rng: Random) -> list[int]:
        """Return the numbers of a question's paragraphs: gold ones, close ones, then those of the walk."""
        numbers = [fact.number for fact in facts]
        for number in numbers:
            self.mark(number)
        slots = self.config.per_question - len(facts)
        # Keeping this share for the walk lets it reach every fact by the last question.
        share = -(-slots * self.unseen // max(1, self.slots))
        self.slots -= slots
        for number in self.close(facts, rng)[: max(0, min(slots // 2, slots - share))]:
            numbers.append(number)
            self.mark(number)
        while len(numbers) < self.config.per_question:
            numbers.append(self.walk(numbers))
            self.mark(numbers[-1])
        return numbers

    def steps(self, facts: list[Fact], rng: Random) -> Iterator[tuple[str, str]]:
        """Yield the question and answer of each step. Earlier answers are written #1, #2 ..."""
        places: dict[int, str] = {}
        for i, fact in enumerate(facts, 1):
            names = [places.get(subject) or self.name(subject) for subject in fact.subjects]
            asked = fact.relation.question.format(*names)
            if self.config.sentences and len(names) == 1 and rng.random() < RELATION_FORM:
                asked = f"{names[0]} >> {fact.relation.name}"
            yield asked, self.name(fact.object)
            places[fact.object] = f"#{i}"

    def question(self, facts: list[Fact]) -> str:
        """Write the steps as one nested question. Each earlier answer is described, not named."""
        phrases: dict[int, str] = {}
        asked = ""
        for fact in facts:
            parts = [phrases.get(subject) or self.name(subject) for subject in fact.subjects]
            asked = fact.relation.question.format(*parts)
            phrases[fact.object] = fact.relation.noun.format(*parts)
        return asked

    def row(self, index: int) -> dict[str, object]:
        rng = self.rng("question", index)
        shape = self.config.shapes[index % len(self.config.shapes)]
        facts = self.draw(shape, rng)
        gold = {fact.number for fact in facts}
        numbers = self.gather(facts, rng)
        rng.shuffle(numbers)
        paragraphs = [
            {"idx": i, "title": title, "paragraph_text": text, "is_supporting": number in gold}
            for i, number in enumerate(numbers)
            for title, text in [self.paragraph(number)]
        ]
        decomposition = [
            {"id": n, "question": asked, "answer": told, "paragraph_support_idx": numbers.index(n)}
            for (n, *_), (asked, told) in zip(facts, self.steps(facts, rng), strict=True)
        ]
        return {
            "id": f"{shape}__{'_'.join(str(fact.number) for fact in facts)}",
            "paragraphs": paragraphs,
            "question": self.question(facts),
            "question_decomposition": decomposition,
            "answer": self.name(facts[-1].object),
            "answer_aliases": [],
            "answerable": True,
        }


def rows(config: WorldConfig) -> Iterator[dict[str, object]]:
    """Yield the world's questions one at a time, in the official row format."""
    return map(_World(config).row, range(config.questions))


def write_world(
    config: WorldConfig, path: str | os.PathLike[str], progress: Callable[[int], None] | None = None
) -> int:
    """Write the rows as JSONL (gzip for .gz); return how many. The file appears only when whole.

    `progress` is called after each row with the number of rows written so far. A symlink stays, and
    its target is replaced. A device or a FIFO takes the rows directly. Raises ValueError for a name
    of another format.
    """
    named = Path(path)
    is_special = named.exists() and not named.is_file() and not named.is_dir()
    if not is_special:
        plain = named.with_suffix("") if named.suffix == ".gz" else named
        if named.name == "-" or named.is_dir():
            raise ValueError(f"cannot write {path}: it is {'a folder' if named.is_dir() else 'not the name of a file'}")
        if plain.suffix not in SUFFIXES:
            raise ValueError(f"cannot write {path}: the rows are JSON lines, so name it .jsonl or .jsonl.gz")
    with (
        nullcontext(named) if is_special else writing(Path(os.path.realpath(named)), shared=True) as part,
        part.open("wb") as raw,
        # No name and no time inside, so the same rows give the same bytes.
        gzip.GzipFile("", "wb", 6, raw, mtime=0) if named.suffix == ".gz" else nullcontext(raw) as out,
    ):
        for count, row in enumerate(rows(config), 1):
            out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            if progress:
                progress(count)
    return config.questions

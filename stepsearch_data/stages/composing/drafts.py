"""Chains with their texts: what a writer gets, and the row that says what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from stepsearch_data.core.arrow import filtered
from stepsearch_data.core.text import joined_lines, normalise
from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.schemas.rows import KEPT, Chain, Composed, DecompositionStep, SupportingParagraph
from stepsearch_data.schemas.tables import CHAINS, PARAGRAPHS, Inputs
from stepsearch_data.search.documents import Document, Documents, write_documents
from stepsearch_data.sources import CORPUS
from stepsearch_data.stages.mining.chains import COMPARISON
from stepsearch_data.stages.mining.titles import split_sense

if TYPE_CHECKING:
    from stepsearch_data.stages.model.replies import Composition

TYPES = ("person", "place", "date", "number", "work", "other")

LONGEST, LONGEST_ANSWER = 500, 150  # characters of a question, and of an answer
_BATCH = 2_000
_ALIASES = 5
_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]\s*|\n\s*")  # of a sentence
_NO_END = re.compile(r"\b(?:[A-Z]|St|Mr|Mrs|Ms|Dr|Prof|No|vs|c)\.$")  # a full stop that ends none


@dataclass(frozen=True)
class Draft:
    """A chain, and the question that it may become: all of its row but what a writer says."""

    chain: Chain
    question: Composed

    @property
    def compares(self) -> bool:
        """Tell whether its two passages are to be compared."""
        return self.chain.kind == COMPARISON

    @property
    def passages(self) -> Sequence[SupportingParagraph]:
        """Return its passages, in the order of the chain."""
        return self.question.supporting

    @cached_property
    def names(self) -> list[str]:
        """Return the names of its passages' titles, without their senses."""
        return [split_sense(passage.title)[0] for passage in self.passages]

    @cached_property
    def sentences(self) -> list[list[str]]:
        """Return the sentences of each passage as a writer sees them."""
        return [sentences_of(passage) for passage in self.passages]

    def longest(self) -> Composed:
        """Return a question as long as one of this chain may be, for an estimate."""
        text, answer = "x" * LONGEST, "x" * LONGEST_ANSWER
        steps = [DecompositionStep(text=text, answer=answer, passage_id=each.passage_id) for each in self.passages]
        return self.question.model_copy(update={"question": text, "answer": answer, "decomposition": steps})

    def row(self, status: str, reason: str, attempts: int, reply: Composition | None = None) -> Composed:
        """Return the row that says what came of it. Only a kept question has hops."""
        said: dict[str, Any] = {}
        if reply:
            said = {
                "question": reply.question,
                "answer": reply.answer,
                "relations": [hop.relation for hop in reply.hops],
                "answer_type": reply.answer_type if reply.answer_type in TYPES else "other",
                "one_valued": all(hop.one_valued for hop in reply.hops),
            }
        if reply and status == KEPT:
            said |= self._proven(reply)
        return self.question.model_copy(update={"status": status, "reason": reason, "attempts": attempts, **said})

    def _proven(self, reply: Composition) -> dict[str, Any]:
        """Return what a reply without a fault says about the passages."""
        used = [self.passages[hop.paragraph - 1] for hop in reply.hops]
        steps = [
            DecompositionStep(text=hop.question, answer=hop.answer, passage_id=passage.passage_id)
            for hop, passage in zip(reply.hops, used, strict=True)
        ]
        supporting = [
            passage.model_copy(update={"supporting_sentences": [hop.sentence - 1]})
            for hop, passage in zip(reply.hops, used, strict=True)
        ]
        aliases = [] if self.compares else self.aliases(reply.hops[-1].aliases, reply.answer)
        return {"decomposition": steps, "supporting": supporting, "answer_aliases": aliases}

    def aliases(self, given: Sequence[str], answer: str) -> list[str]:
        """Return the other names that a passage says: an alias that none says may be invented."""
        said = [sentence for of_passage in self.sentences for sentence in of_passage]
        new = {normalise(name): name for name in given if any(name in sentence for sentence in said)}
        return [name for key, name in new.items() if key not in ("", normalise(answer))][:_ALIASES]


class Drafts:
    """The drafts of all chains, in their order. The passages that they need are copied into a folder."""

    def __init__(self, inputs: Inputs, folder: Path) -> None:
        self._inputs = inputs
        needed = pc.list_flatten(pq.read_table(inputs[CHAINS], columns=["passage_ids"])["passage_ids"]).unique()
        with pq.ParquetFile(inputs[PARAGRAPHS]) as file:
            ids = file.read(columns=["passage_id"])["passage_id"]
            is_needed = pc.is_in(ids, value_set=needed).combine_chunks()
            found = filtered(file.iter_batches(_BATCH, columns=["passage_id", "title", "text"]), is_needed)
            rows = (Document(*row) for batch in found for row in zip(*batch.to_pydict().values(), strict=True))
            write_documents(rows, folder)
        self._documents = Documents(folder)
        self._numbers = {passage_id: number for number, passage_id in enumerate(self._documents.ids().to_pylist())}

    def __len__(self) -> int:
        return int(pq.read_metadata(self._inputs[CHAINS]).num_rows)

    def __iter__(self) -> Iterator[Draft]:
        for position, chain in enumerate(read_rows(self._inputs[CHAINS], CHAINS), start=1):
            yield draft_of(chain, position, [self._documents[self._numbers[each]] for each in chain.passage_ids])


def draft_of(chain: Chain, position: int, passages: Sequence[Document]) -> Draft:
    """Return the draft of a chain with these passages."""
    supporting = [
        SupportingParagraph(
            passage_id=passage.id,
            title=passage.title,
            text=passage.text,
            sentence_ends=_ends(passage.text),
            supporting_sentences=[],
        )
        for passage in passages
    ]
    question = Composed(
        question_id=f"{CORPUS}__{chain.chain_id}",
        source=CORPUS,
        position=position,
        question="",
        answer="",
        question_type=chain.kind,
        hops=chain.hops,
        paragraph_ids=chain.passage_ids,
        supporting=supporting,
        chain_id=chain.chain_id,
        relations=[],
        answer_type="",
        one_valued=False,
        attempts=0,
        status="",
        reason="",
    )
    return Draft(chain, question)


def sentences_of(passage: SupportingParagraph) -> list[str]:
    """Return the sentences of a passage, each in one line."""
    starts = [0, *passage.sentence_ends]
    return [joined_lines(passage.text[start:end]) for start, end in pairwise(starts)]


def _ends(text: str) -> list[int]:
    """Return where each sentence ends, with the space after it."""
    ends = [
        end.end() for end in _END.finditer(text) if not _NO_END.search(text, max(0, end.start() - 5), end.start() + 1)
    ]
    return [*(end for end in ends if end < len(text)), len(text)]

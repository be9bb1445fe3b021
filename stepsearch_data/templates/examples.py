"""What templates write out: a trajectory with its texts, whatever table they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.schemas.rows import Hit, RetrievedDocument, Round


@dataclass(frozen=True)
class Paragraph:
    """A title and its text."""

    title: str
    text: str


@dataclass(frozen=True)
class Search:
    """A query and the documents that it showed, best first. `good`: it passed the vote and shows a gold paragraph."""

    query: str
    documents: tuple[Paragraph, ...]
    good: bool


@dataclass(frozen=True)
class Step:
    """One round: what was asked and found, its search, and the hop's searches that the engines voted out.

    `role` is gold, distractor (a search that finds nothing, before the gold one of its hop) or abstain
    (the last search of a question that cannot be answered). `keys` are the reference queries, the
    round's own first: never empty. Where the vote dropped every query of the hop, the round's own was dropped too.
    `rejected` is filled only for formats that want it.
    """

    hop: int
    role: str
    sub_question: str
    found: str
    search: Search
    keys: tuple[str, ...]
    gold: tuple[Paragraph, ...] = ()
    rejected: tuple[Search, ...] = ()


@dataclass(frozen=True)
class Example:
    """A trajectory with all that a format may want. `index` counts from 0 in its split; `answers[0]` is gold."""

    index: int
    split: str
    question_id: str
    source: str
    question: str
    answers: tuple[str, ...]
    hops: int
    steps: tuple[Step, ...]

    @property
    def gold(self) -> tuple[Paragraph, ...]:
        """Return the distinct gold paragraphs, in order of first use."""
        return tuple(dict.fromkeys(paragraph for step in self.steps for paragraph in step.gold))

    @property
    def keys(self) -> list[list[str]]:
        """Return the reference queries of each hop that was searched."""
        return [list(step.keys) for step in self.steps if step.role != "distractor"]

    @property
    def abstains(self) -> bool:
        """Tell whether the answer is that there is none."""
        return self.steps[-1].role == "abstain"


class Passages:
    """Titles and texts by passage id, kept in Arrow's compact form; they turn rows into what templates write out.

    The file is read when the first text is asked for. Pickled are not the texts but the path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def __reduce__(self) -> tuple[type[Passages], tuple[Path]]:
        return Passages, (self._path,)

    @cached_property
    def _columns(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        table = pq.read_table(self._path, columns=["title", "text"]).combine_chunks()
        return table["title"], table["text"]

    @cached_property
    def _places(self) -> dict[str, int]:
        ids = pq.read_table(self._path, columns=["passage_id"])["passage_id"]
        return {passage_id: place for place, passage_id in enumerate(ids.to_pylist())}

    def __getitem__(self, passage_id: str) -> Paragraph:
        place = self._places[passage_id]
        titles, texts = self._columns
        return Paragraph(titles[place].as_py(), texts[place].as_py())

    def shown(self, document: RetrievedDocument | Hit) -> Paragraph:
        """Return the title and text of a document: of a passage of the corpus, or from elsewhere."""
        if document.passage_id is not None:
            return self[document.passage_id]
        return Paragraph(document.title or "", document.text or "")

    def search(self, query: str, documents: Iterable[RetrievedDocument | Hit], *, good: bool = False) -> Search:
        """Return a query and the documents that it showed."""
        return Search(query, tuple(map(self.shown, documents)), good)

    def step(self, step: Round, gold: tuple[Paragraph, ...] = (), rejected: tuple[Search, ...] = ()) -> Step:
        """Return a round with its texts."""
        return Step(
            hop=step.hop,
            role=step.role,
            sub_question=step.sub_question,
            found=step.sub_answer,
            search=self.search(step.query, step.documents, good=step.kept and step.gold_rank is not None),
            keys=(step.query, *step.alternatives),
            gold=gold,
            rejected=rejected,
        )

"""mine: the `paragraphs` of a corpus → `links` between them, and `chains` of which questions can be made."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from stepsearch_data.core.arrow import filtered
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import MiningCount
from stepsearch_data.schemas.tables import CHAINS, LINKS, MINING, ORIGINS, PARAGRAPHS
from stepsearch_data.stages.mining.chains import COMPARISON, Chains, Links, draw
from stepsearch_data.stages.mining.comparisons import SOON, Comparisons
from stepsearch_data.stages.mining.links import Text, find_links
from stepsearch_data.stages.mining.titles import Titles

_BATCH = 2_000
_WRITTEN = 50_000


class MineConfig(StageConfig):
    """Which links count, and how many chains are drawn."""

    questions: int = Field(default=1_000, ge=1, le=10_000_000, description="chains to draw, one for each question")
    hops: tuple[Literal[2, 3, 4], ...] = Field(
        default=(2, 3, 4), description="lengths of the chains that are drawn in turn: 2, 3 and 4 passages"
    )
    comparisons: bool = Field(default=True, description="draw pairs to compare, too")
    per_title: int = Field(default=3, ge=1, le=1_000_000_000, description="chains that one title is drawn in, at most")
    per_passage: int = Field(
        default=2, ge=1, le=1_000_000_000, description="chains that one passage is drawn in, at most"
    )
    most_named: int = Field(
        default=20, ge=1, le=1_000_000_000, description="leave out links to titles that more passages name"
    )
    many_named: int = Field(
        default=5, ge=1, le=1_000_000_000, description="doubt links to titles that more passages name"
    )
    min_rank: float = Field(
        default=0.5, gt=0, le=1, description="leave out links of a lower rank: 0.5 allows one doubt, 1 none"
    )


class _Corpus:
    """The passages that come from documents, in the order of `paragraphs`."""

    def __init__(self, context: StageContext) -> None:
        self._path = context.inputs[PARAGRAPHS]
        ids, mined = (pq.read_table(context.inputs[of], columns=["passage_id"])[0] for of in (PARAGRAPHS, ORIGINS))
        self._is_mined = pc.is_in(ids, value_set=mined).combine_chunks()

    def read(self, *columns: str) -> Iterator[tuple[str, ...]]:
        """Yield these columns of every passage."""
        with pq.ParquetFile(self._path) as file:
            for kept in filtered(file.iter_batches(_BATCH, columns=columns), self._is_mined):
                yield from zip(*(kept[column].to_pylist() for column in columns), strict=True)


class _Mine:
    """Mines a corpus. Its passages and titles are numbered as they come, which decides no row."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._config = context, context.config(MineConfig)
        self._corpus = _Corpus(context)
        context.meter.expect(context.count(ORIGINS))
        self._titles = Titles(title for (title,) in self._corpus.read("title"))
        self._ids: list[str] = []
        self._title_of = array("q")
        self._comparisons = Comparisons()
        config = self._config
        self._found = find_links(
            self._passages(), self._titles, most=config.most_named, many=config.many_named, least=config.min_rank
        )

    def _passages(self) -> Iterator[Text]:
        for passage in map(Text._make, self._corpus.read("passage_id", "title", "text")):
            self._ids.append(passage.passage_id)
            self._title_of.append(self._titles.number(passage.title))
            name = self._titles.name(self._title_of[-1])
            if self._config.comparisons and name and name in passage.text[:SOON]:
                self._comparisons.add(passage, self._title_of[-1])
            self._context.meter.advance()
            yield passage

    def write_links(self) -> None:
        """Write the links in the order of the ids of their passages."""
        found, ids = self._found, pa.array(self._ids, pa.string())
        places = np.empty(len(ids), np.int64)
        places[pc.sort_indices(ids)] = np.arange(len(ids))
        order = np.lexsort((found.start, places[found.passage]))
        titles = pa.array(self._titles.texts, pa.string())
        names = pa.array([self._titles.name(number) for number in range(len(titles))], pa.string())
        for part in np.split(order, range(_WRITTEN, len(order), _WRITTEN)):
            columns = {
                "passage_id": ids.take(pa.array(found.passage[part])),
                "mention": names.take(pa.array(found.title[part])),
                "start": found.start[part],
                "title": titles.take(pa.array(found.title[part])),
                "target_id": ids.take(pa.array(found.target[part])),
                "named_by": found.named_by[part],
                "rank": found.rank[part],
            }
            self._context.writer(LINKS).write(pa.table(columns))

    def write_chains(self) -> None:
        """Draw chains and write them in the order in which they are drawn, and what was found and left out."""
        config, found = self._config, self._found
        links = Links(
            passage=found.passage,
            source=np.asarray(self._title_of, np.int64)[found.passage],
            title=found.title,
            target=found.target,
            rank=found.rank,
            named=found.named,
            held=np.asarray(self._titles.held(), np.int64),
            name_of=np.asarray(self._titles.name_of, np.int64),
            ids=np.fromiter((int(each, 16) for each in self._ids), np.uint64, len(self._ids)),
            titles=len(self._titles.texts),
            names=len(self._titles.names),
        )
        chains = Chains(links, self._comparisons.pairs(self._titles.texts), config.hops, self._titles.name)
        drawn = draw(chains, config.questions, per_title=config.per_title, per_passage=config.per_passage)
        for chain in drawn:
            self._context.writer(CHAINS).append(chain)
        of_part = Counter(chain.kind if chain.kind == COMPARISON else f"{chain.hops} hops" for chain in drawn)
        counted = [
            ("passages", {"": len(self._ids)}),
            ("titles", {"": len(self._titles.texts)}),
            ("left out", found.left_out),
            ("links", {"": len(found.rank)}),
            ("chains", chains.counts),
            ("drawn", {part: of_part[part] for part in chains.counts}),
        ]
        for step, parts in counted:
            for part, count in parts.items():
                self._context.writer(MINING).append(MiningCount(step=step, part=part, count=count))


def mine(context: StageContext) -> None:
    """Find links and chains in the passages of documents."""
    mined = _Mine(context)
    mined.write_links()
    mined.write_chains()


STAGE = Stage(
    name="mine",
    doc="find links and chains of passages in documents",
    reads=(PARAGRAPHS, ORIGINS),
    writes=(LINKS, CHAINS, MINING),
    config=MineConfig,
    run=mine,
    version=2,
    only_with=ORIGINS,
)

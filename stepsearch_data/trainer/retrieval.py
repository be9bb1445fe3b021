"""What episodes search: a local index, or an engine elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search.engine import LocalEngine, SearchEngine
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.rollout import Retrieve


@contextmanager
def retriever(engine: SearchEngine) -> Iterator[Retrieve]:
    """Searches with an engine until the block ends."""
    with asyncio.Runner() as runner:
        try:
            yield _local(engine) if isinstance(engine, LocalEngine) else _elsewhere(engine, runner)
        finally:
            runner.run(engine.close())


def _local(engine: LocalEngine) -> Retrieve:
    def retrieve(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        found = engine.index.find(queries, k)
        documents = [[engine.documents[number] for number, _ in hits] for hits in found]
        return [[Paragraph(document.title, document.text) for document in each] for each in documents]

    return retrieve


def _elsewhere(engine: SearchEngine, runner: asyncio.Runner) -> Retrieve:
    def retrieve(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        """Raises SearchError where a query gets no answer: an episode must not learn from a retriever that is down."""
        answers = runner.run(engine.search(queries, k))
        error = next((answer.error for answer in answers if answer.error), None)
        if error:
            raise SearchError(f"{engine.name} does not answer: {error}", "start it again; the same command goes on")
        return [[Paragraph(found.title, found.text) for found in answer.found] for answer in answers]

    return retrieve

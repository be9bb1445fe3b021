"""One thread that searches: everything that waits, in one batch."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, SimpleQueue

from aiohttp import web

from stepsearch_data.core.errors import SearchError
from stepsearch_data.search.engine import LocalEngine
from stepsearch_data.serve.protocol import Question, write_answer, write_answers

BATCH = 512  # queries that are searched together: the most that a new one waits for
TURN = 64  # queries of one request, while others wait too
MOST_WAITING = 100_000  # queries
_DOWN = 3  # failures in a row
_USUAL = 200  # characters of a query; longer ones count for several

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Job:
    """A request's queries in progress: `answers` grows until there is one for each."""

    question: Question
    future: asyncio.Future[bytes]
    answers: list[bytes] = field(default_factory=list)
    taken: int = 0
    dropped: bool = False

    def take(self, size: int) -> tuple[list[str], int]:
        """Return the next queries, at least one, and how much they weigh."""
        first, weight = self.taken, 0
        while self.taken < len(self.question.queries) and weight < size:
            weight += _weight(self.question.queries[self.taken])
            self.taken += 1
        return self.question.queries[first : self.taken], weight


def _weight(query: str) -> int:
    return 1 + len(query) // _USUAL


_Part = tuple[_Job, list[str]]


class Searcher:
    """Answers questions. What arrives while the index works is searched together next; long requests take turns.

    An answer does not depend on what else is in its batch. `searched` is told how many queries each batch had, and
    how many documents were found. Close it to end its thread.
    """

    def __init__(self, engine: LocalEngine, searched: Callable[[int, int], None]) -> None:
        self.waiting = 0  # queries, including those that are being searched
        self._index, self._documents, self._searched = engine.index, engine.documents, searched
        self._loop = asyncio.get_running_loop()
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)
        self._thread.start()

    async def ask(self, question: Question) -> bytes:
        """Return the JSON of the answer. Nobody searches for a question whose task has been cancelled.

        Raises HTTPServiceUnavailable at once where more queries wait than will be answered soon, SearchError, and
        HTTPInternalServerError for a bug of the engine, which is logged.
        """
        if not question.queries:
            return write_answers(())
        size = sum(map(_weight, question.queries))
        if self.waiting and self.waiting + size > MOST_WAITING:
            raise web.HTTPServiceUnavailable(text="too many queries wait; try again soon", headers={"Retry-After": "1"})
        job = _Job(question, self._loop.create_future())
        self.waiting += size
        self._inbox.put(job)
        try:
            return await job.future
        finally:
            self.waiting -= size
            job.dropped = True

    def close(self) -> None:
        """Finish the batch that is being searched, and no other."""
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        jobs: deque[_Job] = deque()
        while self._gather(jobs):
            for parts in _batch(jobs).values():
                self._search(parts)

    def _gather(self, jobs: deque[_Job]) -> bool:
        """Add what waits, and wait if nothing does; return false when the searcher is closed."""
        with suppress(Empty):
            while True:
                job = self._inbox.get_nowait() if jobs else self._inbox.get()
                if job is None:
                    return False
                jobs.append(job)
        return True

    def _search(self, parts: list[_Part]) -> bool:
        """Search for queries that want equally many documents; return false where that failed."""
        try:
            found = self._index.find([query for _, part in parts for query in part], parts[0][0].question.k)
            each = iter(found)
            written = [
                [write_answer(self._documents, one, scores=job.question.scores) for one in islice(each, len(part))]
                for job, part in parts
            ]
        except Exception as error:  # noqa: BLE001 - whatever an engine of somebody else's raises
            if len(parts) > 1:
                self._search_alone(parts)
            else:
                known = isinstance(error, SearchError)
                _log.error("the engine failed: %s", error, exc_info=not known)
                bug = web.HTTPInternalServerError(text="the engine failed; the server's log says why")
                self._hand_over([(parts[0][0], error if known else bug)])
            return False
        self._searched(len(found), sum(map(len, found)))
        for (job, _), answers in zip(parts, written, strict=True):
            job.answers += answers
        jobs = {job: None for job, _ in parts if len(job.answers) == len(job.question.queries)}
        self._hand_over([(job, write_answers(job.answers)) for job in jobs])
        return True

    def _search_alone(self, parts: list[_Part]) -> None:
        """Search one by one, as one query may have failed all. Where single ones fail in a row, the engine is down."""
        failed = 0
        for job, queries in parts:
            if failed == _DOWN:
                self._hand_over([(job, SearchError("the engine is down"))])
            elif not job.dropped:
                failed = 0 if self._search([(job, queries)]) else failed + 1

    def _hand_over(self, done: list[tuple[_Job, bytes | Exception]]) -> None:
        for job, answer in done:
            job.dropped |= isinstance(answer, Exception)  # its other parts need no search
        if done:
            with suppress(RuntimeError):  # the server has ended
                self._loop.call_soon_threadsafe(_deliver, done)


def _batch(jobs: deque[_Job]) -> dict[int, list[_Part]]:
    """Take at most a batch of queries by their k, first come, first served; jobs that are not done queue up again."""
    parts: dict[int, list[_Part]] = {}
    size = 0
    while jobs and size < BATCH:
        job = jobs.popleft()
        if job.dropped:
            continue
        queries, weight = job.take(min(TURN, BATCH - size))
        parts.setdefault(job.question.k, []).append((job, queries))
        size += weight
        if job.taken < len(job.question.queries):
            jobs.append(job)
    return parts


def _deliver(done: list[tuple[_Job, bytes | Exception]]) -> None:
    for job, answer in done:
        if job.future.done():  # its client has gone
            continue
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)

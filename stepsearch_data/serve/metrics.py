"""What the server counts, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUERIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        shared: Any = {"registry": self.registry, "namespace": "stepsearch"}
        requests = Counter("requests", "HTTP requests by path and status", ["path", "status"], **shared)
        self.requests = cache(requests.labels)  # called with a path and a status, which are few
        self._queries = Counter("queries", "Queries searched for", **shared)
        self._documents = Counter("documents", "Documents found", **shared)
        self.in_flight = Gauge("requests_in_flight", "Requests to /retrieve that are being answered", **shared)
        self.seconds = Histogram(
            "retrieve_seconds", "Seconds from a request's headers to its answer", buckets=_SECONDS, **shared
        )
        self._batch = Histogram("batch_queries", "Queries that were searched together", buckets=_QUERIES, **shared)
        Gauge("queries_waiting", "Queries that wait or are being searched", **shared).set_function(waiting)

    def searched(self, queries: int, documents: int) -> None:
        """Count a batch, from any thread."""
        self._batch.observe(queries)
        self._queries.inc(queries)
        self._documents.inc(documents)

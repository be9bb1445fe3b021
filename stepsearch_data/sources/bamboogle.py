"""Bamboogle: questions of two hops each, with answers alone."""

from stepsearch_data.sources.dataset import Dataset
from stepsearch_data.sources.hotpotqa import score

DATASET = Dataset(
    name="bamboogle", doc="Bamboogle", hops=2, score=score, data_source="bamboogle", released_as="bamboogle"
)

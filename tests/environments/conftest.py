"""The sample's store as something to play in."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.environments import EnvironmentConfig

QUESTION = "2hop__811040_270741"  # Where was the composer of The Barber of Seville born?
GOLD_QUERIES = ("The Barber of Seville composer", "Gioachino Rossini place of birth")


@pytest.fixture(scope="session")
def config(sample_store: Path) -> EnvironmentConfig:
    """For a policy that calls tools."""
    return EnvironmentConfig(str(sample_store))


@pytest.fixture(scope="session")
def tagged_config(sample_store: Path) -> EnvironmentConfig:
    """For a policy that writes tags, with room for five whole answers of the engine."""
    return EnvironmentConfig(str(sample_store), template="musique", max_length=100_000, max_obs_length=10_000)

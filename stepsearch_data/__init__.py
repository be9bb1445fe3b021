"""stepsearch-data: multi-hop questions in, step-by-step search trajectories out."""

__version__ = "0.1.0"

"""A synthetic world in MuSiQue's format, of any size: for scale tests and small training runs."""

from stepsearch_data.synth.world import WorldConfig, rows, write_world

__all__ = ["WorldConfig", "rows", "write_world"]

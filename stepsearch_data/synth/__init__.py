"""A made-up world in MuSiQue's format, of any size: for scale tests, and as a trainer's toy."""

from stepsearch_data.synth.world import WorldConfig, rows, write_world

__all__ = ["WorldConfig", "rows", "write_world"]

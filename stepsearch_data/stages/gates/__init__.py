"""The gates of the stage `quality`, and the splits and difficulties that go with them."""

from stepsearch_data.stages.gates.checks import Case, eval_findings, length_findings, own_findings
from stepsearch_data.stages.gates.config import GATES, NOT_CHECKED, Finding, QualityConfig, unchecked
from stepsearch_data.stages.gates.difficulty import band, difficulty
from stepsearch_data.stages.gates.duplicates import Duplicates
from stepsearch_data.stages.gates.groups import Groups, split_of
from stepsearch_data.stages.gates.lengths import usual_lengths
from stepsearch_data.stages.gates.outside import read_eval, read_rollouts
from stepsearch_data.stages.gates.survey import survey

__all__ = [
    "GATES",
    "NOT_CHECKED",
    "Case",
    "Duplicates",
    "Finding",
    "Groups",
    "QualityConfig",
    "band",
    "difficulty",
    "eval_findings",
    "length_findings",
    "own_findings",
    "read_eval",
    "read_rollouts",
    "split_of",
    "survey",
    "unchecked",
    "usual_lengths",
]

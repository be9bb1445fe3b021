"""A store as something to play in, for any trainer: a question, searches of its index, and a reward for each turn.

`environment` is for policies that call tools, `tagged` for those that write tags. `config` says what is played.
`retriever` searches for all environments of a process. The other modules are adapters, one per trainer.
"""

from stepsearch_data.environments.config import EnvironmentConfig, task_of
from stepsearch_data.environments.environment import SearchEnvironment, SearchResult, final_answer
from stepsearch_data.environments.tagged import TaggedEnvironment, Turn

__all__ = [
    "EnvironmentConfig",
    "SearchEnvironment",
    "SearchResult",
    "TaggedEnvironment",
    "Turn",
    "final_answer",
    "task_of",
]

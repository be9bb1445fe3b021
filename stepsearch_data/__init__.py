"""stepsearch-data: multi-hop questions in, step-by-step search trajectories out.

    import stepsearch_data as ssd

    store = ssd.build("store")
    store.sql("SELECT hops, count(*) AS n FROM trajectories GROUP BY hops")

Everything is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stepsearch_data.core.version import __version__

if TYPE_CHECKING:
    from stepsearch_data.api import Store, build, load_trajectories, open, score  # noqa: A004 - ssd.open, as gzip.open
    from stepsearch_data.core import errors
    from stepsearch_data.trajectory import Trajectory

__all__ = ["Store", "Trajectory", "__version__", "build", "errors", "load_trajectories", "open", "score"]
_ELSEWHERE = {"Trajectory": "trajectory", "errors": "core"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    module = import_module(f"{__name__}.{_ELSEWHERE.get(name, 'api')}")
    return import_module(f"{module.__name__}.errors") if name == "errors" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__

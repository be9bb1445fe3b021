"""The package that makes an export of questions a taskset of verifiers 0.4: what stands beside its rows."""

from __future__ import annotations

from collections.abc import Mapping

from stepsearch_data.core.version import __version__
from stepsearch_data.templates.template import Template

NAME = "stepsearch-questions"
MODULE = NAME.replace("-", "_")

_PROJECT = f"""# A taskset of verifiers 0.4, written by stepsearch-data {__version__}.
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "{NAME}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["verifiers>=0.4,<0.5", "stepsearch-data"]

[tool.hatch.build.targets.wheel]
include = ["/__init__.py", "/*.jsonl"]
sources = {{ "" = "{MODULE}" }}

# verifiers asks for an older client of models, which nothing needs that this package imports.
[tool.uv]
override-dependencies = ["openai>=2.54,<3"]
"""
_PACKAGE = '''"""Questions of a store, and a harness that searches it."""

from pathlib import Path

from stepsearch_data.environments.verifiers import SearchHarness, SearchTaskset


class Questions(SearchTaskset):
    """The questions beside this file."""

    folder = Path(__file__).parent


__all__ = ["Questions", "SearchHarness"]
'''


def package(_files: Mapping[str, str], _template: Template) -> dict[str, bytes]:
    """Return the files beside the rows: the package's module, and how it is installed."""
    return {"__init__.py": _PACKAGE.encode(), "pyproject.toml": _PROJECT.encode()}

"""Declarations by name, ours and those of other packages: each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.validation import known_names

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry:
    """Declarations of one sort: `ours` as `module:attribute` by name, and those under the entry point `group`.

    `what` is what a message calls one of them. Where a package declares one under a name of ours, ours is taken.
    """

    def __init__(self, group: str, what: str, ours: Mapping[str, str]) -> None:
        self.group = group
        self.what = what
        self.ours = dict(ours)

    @cached_property
    def points(self) -> dict[str, EntryPoint]:
        """Return where each declaration is, by name."""
        from importlib.metadata import EntryPoint, entry_points  # a help text needs the names of ours alone

        ours = {name: EntryPoint(name, target, self.group) for name, target in self.ours.items()}
        return {point.name: point for point in entry_points(group=self.group)} | ours

    def names(self) -> list[str]:
        """Return the names of all that are installed, ours first."""
        return [*self.ours, *(name for name in self.points if name not in self.ours)]

    def load(self, name: str, kind: type[T]) -> T:
        """Load the declaration of that name, of this type. Raises ConfigError where there is none, or it is broken."""
        if name not in self.points:
            raise ConfigError(f"there is no {self.what} {name!r}", known_names(name, self.names()))
        point = self.points[name]
        package = point.dist.name if point.dist else point.module
        try:
            found = point.load()
        except Exception as error:  # whatever another package raises while it is imported
            if name in self.ours:
                raise
            why = " ".join(f"{type(error).__name__}: {error}".split())
            message = f"the {self.what} {name} of the package {package} cannot be loaded: {why}"
            raise ConfigError(message, f"update it, or remove it: pip uninstall {package}") from error
        if not isinstance(found, kind) or getattr(found, "name", name) != name:
            wanted = f"stepsearch_data {kind.__name__} named {name}"
            raise ConfigError(f"{point.value} of the package {package} is not a {wanted}")
        return found

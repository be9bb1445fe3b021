"""Which licence the texts of a release are under: by source, and of rows that mix several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.pipeline.stage import Recipe
from stepsearch_data.sources import parse_source

OTHER = "other"
"""The Hub's name for a licence that is none of the known ones, or a mix that none of them covers."""
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_OFFICIAL = {"musique": "cc-by-4.0", "hotpotqa": "cc-by-sa-4.0", "2wiki": "apache-2.0"}
_SAMPLE = "apache-2.0"
_BY_STRICTNESS = ("cc0-1.0", "mit", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0")
"""Texts under one of these may be passed on together, under the last of those that occur."""


@dataclass(frozen=True)
class Origin:
    """A source of a store: its kind, what identifies its content, its licence, and who says so.

    `of` is official (a public dataset), sample (our own text) or own (the publisher's).
    """

    label: str
    kind: str
    digest: str
    licence: str
    of: str


def origins(load: Recipe, given: Mapping[str, str]) -> list[Origin]:
    """The sources that a store was loaded from. `given` are the publisher's own words, licences by kind.

    Raises ConfigError where a licence is not known, is no name that the Hub has, or is of no source.
    """
    kinds = {label: label.partition("(")[2].removesuffix(")") for label in load["inputs"]}
    unknown = sorted(given.keys() - kinds.values())
    if unknown:
        named = ", ".join(sorted(set(kinds.values())))
        raise ConfigError(f"--license: the store has no source {unknown[0]}", f"it has: {named}; say KIND=LICENCE")
    return [_origin(label, kinds[label], digest, given) for label, digest in load["inputs"].items()]


def _origin(label: str, kind: str, digest: str, given: Mapping[str, str]) -> Origin:
    if kind in ("musique", "hotpotqa") and digest == parse_source(f"{kind}=sample").digest():
        return Origin(label, kind, digest, _SAMPLE, "sample")
    if kind in given:
        return Origin(label, kind, digest, _checked(given[kind]), "own")
    if kind in _OFFICIAL:
        return Origin(label, kind, digest, _OFFICIAL[kind], "official")
    raise ConfigError(f"{label} is your own data: its licence is not known", "say it: --license cc-by-4.0")


def _checked(licence: str) -> str:
    if not _ID.fullmatch(licence):
        raise ConfigError(
            f"{licence!r} is no licence identifier", "use the Hub's, such as apache-2.0, cc-by-4.0 or other"
        )
    return licence


def by_kind(found: Iterable[Origin]) -> dict[str, str]:
    """The licence of each kind of source; a row only knows the kind that it came from."""
    listed = list(found)
    return {kind: combined(o.licence for o in listed if o.kind == kind) for kind in {o.kind for o in listed}}


def combined(licences: Iterable[str]) -> str:
    """The licence of texts that are passed on together: the strictest, or `other` where none covers all."""
    distinct = set(licences)
    if len(distinct) == 1:
        return distinct.pop()
    return max(distinct, key=_BY_STRICTNESS.index) if distinct and distinct <= set(_BY_STRICTNESS) else OTHER

"""Rows of a CSV file, without holding the file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from stepsearch_data.core.errors import SourceError
from stepsearch_data.core.files import open_regular


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield rows by the names in the first line; a short line lacks the last ones. Raises SourceError, also midway."""
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                yield {name: value for name, value in row.items() if name is not None and value is not None}
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"cannot read {path}: {reason}", "check the path") from error

"""`show`: one trajectory, round by round."""

from __future__ import annotations

from typing import Annotated

import typer

from stepsearch_data.cli import options
from stepsearch_data.cli.common import open_store
from stepsearch_data.cli.printing import print_json, say


def show(
    question_id: Annotated[
        str | None, typer.Argument(help="Question to show; the first trajectory by default.")
    ] = None,
    store: options.Store = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Print one trajectory for a human: every round with its queries and documents, gold ones marked."""
    trajectory = open_store(store, config).trajectory(question_id)
    if as_json:
        print_json(trajectory.model_dump())
        return
    for line in trajectory.lines():
        say(*line)

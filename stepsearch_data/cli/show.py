"""`show`: one trajectory, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepsearch_data.cli.common import open_store
from stepsearch_data.cli.options import ConfigOption, JsonOption, StoreOption
from stepsearch_data.cli.printing import print_json, say, store_flag
from stepsearch_data.core.errors import StoreError

if TYPE_CHECKING:
    from stepsearch_data.pipeline.store import Store


def show(
    question_id: Annotated[
        str | None, typer.Argument(help="Question to show; the first trajectory by default.")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print one trajectory for a human: every round with its queries and documents, gold ones marked."""
    _show(open_store(store, config), question_id, as_json=as_json)


_REJECTED = """
SELECT hop, query, waiting, engines, valid_engines, gold_rank FROM queries WHERE question_id = $id AND NOT kept
ORDER BY hop, n
"""


def _show(store: Store, question_id: str | None, *, as_json: bool) -> None:
    from stepsearch_data.pipeline.catalog import connect
    from stepsearch_data.schemas.tables import QUALITY, ROUNDS, TRAJECTORIES

    with store.reading() as manifest, connect(store, manifest) as connection:
        if manifest.output(TRAJECTORIES.name) is None or manifest.output(ROUNDS.name) is None:
            raise StoreError("the store is not built to its end", f"stepsearch-data build{store_flag(store)}")
        chosen = "WHERE question_id = $id" if question_id else "LIMIT 1"
        wholes = _records(
            connection, f"SELECT * FROM trajectories {chosen}", {"id": question_id} if question_id else {}
        )
        if not wholes:
            of = f" of question {question_id}" if question_id else ""
            listing = f'stepsearch-data sql{store_flag(store)} "SELECT question_id FROM trajectories"'
            fault = _fault(connection, question_id)
            raise StoreError(f"there is no trajectory{of}{fault}", f"list them: {listing}")
        identity = {"id": wholes[0]["question_id"]}
        steps = _records(connection, "SELECT * FROM rounds WHERE question_id = $id ORDER BY round", identity)
        judged = manifest.output(QUALITY.name) and manifest.is_fresh(manifest.writer(QUALITY.name))
        gates = _records(connection, "SELECT * FROM quality WHERE question_id = $id", identity) if judged else []
        rejected = _records(connection, _REJECTED, identity)
    if as_json:
        print_json({**wholes[0], "rounds": steps, "quality": gates[0] if gates else None, "rejected": rejected})
        return
    _tell(wholes[0], steps, gates[0] if gates else None, rejected)


def _fault(connection: Any, question_id: str | None) -> str:
    """Why a stage set a question aside, where one did."""
    found = _records(
        connection, "SELECT stage, reason FROM rejects WHERE question_id = $id LIMIT 1", {"id": question_id}
    )
    return f": {found[0]['stage']} rejected it: {found[0]['reason']}" if question_id and found else ""


def _records(connection: Any, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return connection.sql(sql, params=parameters).to_arrow_table().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types


def _tell(
    whole: dict[str, Any],
    steps: Sequence[dict[str, Any]],
    gates: dict[str, Any] | None,
    rejected: Sequence[dict[str, Any]],
) -> None:
    say(whole["question"], style="bold")
    say(f"{whole['question_id']} · {whole['source']} · {whole['question_type']} · {whole['hops']} hops")
    failed = not whole["complete"] or (gates and not gates["passed"])
    if failed:
        say(("\nFailed  ", "bold red"), "" if whole["complete"] else "a hop has no kept query: not complete")
    for gate, reason in zip(gates["flags"], gates["reasons"], strict=True) if gates else ():
        say("  ⚑ ", (gate, "red" if failed else "yellow"), f": {reason}")
    for step in steps:
        say("\n", (f"Round {step['round']}  ", "bold"), step["sub_question"])
        say("  search  ", (step["query"], "cyan"), "  ", ("kept", "green") if step["kept"] else ("not kept", "red"))
        for other in step["alternatives"]:
            say(f"     also  {other}", style="dim")
        for document in step["documents"]:
            mark = ("★ gold ", "yellow") if document["is_gold"] else "       "
            place = f"{document['rank']}. {document['title']}  ({document['engine']} {document['score']:.2f})"
            say("  ", mark, place)
        for other in rejected if failed else ():
            if other["hop"] == step["hop"] and other["query"] != step["query"]:
                say(f"     rejected  {other['query']}  ({_verdict(other)})", style="dim")
        say("  found   " if step["kept"] else "  wanted  ", (step["sub_answer"], "green"))
    say("\n", ("Answer  ", "bold"), (whole["answer"], "bold green"))


def _verdict(query: dict[str, Any]) -> str:
    """Why the vote did not keep a query."""
    if query["waiting"]:
        return "it waits for engines that did not answer"
    gold = f"gold at rank {query['gold_rank']}" if query["gold_rank"] else "no gold found"
    return f"{query['valid_engines']} of {query['engines']} engines, {gold}"

"""Commits to a store at a URL, as machines make them."""

from __future__ import annotations

from collections.abc import Callable

from stepsearch_data.pipeline.store import Entry, Store

NAME = "0123456789ab"
Machine = Callable[[str], Store]


def put(
    store: Store, text: str, *, stage: str = "load", name: str = NAME, table: str = "numbers", log: str = ""
) -> Entry:
    """Commit a stage with one table and rejects (of text, which the store does not mind)."""
    fingerprint = {"version": 1, "config": {}, "inputs": {}, "outputs": {table: "text"}}
    with store.locked(), store.staging() as folder:
        if log:
            store.log("builds", {"stage": log})
        (folder / f"{table}.parquet").write_text(text)
        (folder / "rejects.parquet").write_text("")
        entry = store.commit(stage, name, fingerprint, folder, {table: 1, "rejects": 0})
        store.sweep()
    return entry


def text_of(store: Store, table: str = "numbers") -> str:
    with store.reading() as manifest:
        output = manifest.output(table)
        assert output
        return store.path(output).read_text()


def logged(store: Store) -> list[str]:
    return [str(record["stage"]) for record in store.read_log("builds")]

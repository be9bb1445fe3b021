"""What is exported, into which files, and what stays untouched when something fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.core.progress import Meter
from stepsearch_data.exports import FORMATS
from stepsearch_data.exports import export as module
from stepsearch_data.exports.export import find_format
from stepsearch_data.exports.files import Files
from stepsearch_data.exports.reading import examples
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.files import TEMPLATES, load_template
from stepsearch_data.templates.template import Template
from tests.conftest import Run
from tests.exports.conftest import Export, complete, path_of, rows_of, table, with_quality, without_nulls
from tests.rows import musique, write_lines
from tests.tree import tree

NAMES = FORMATS.names()
CASES = [(f, t) for f in map(find_format, NAMES) for t in TEMPLATES if not (f.tags_only and t == "tools")]


@pytest.mark.parametrize(("form", "template"), CASES, ids=lambda case: getattr(case, "name", case))
def test_rows_have_the_declared_columns(form: Any, template: str, export: Export) -> None:
    """Types too: a JSON row is checked by Arrow, and a Parquet file by its own schema."""
    written = export(form.name, template)
    schema: pa.Schema = form.schema(load_template(template))
    for path, count in written.rows.items():
        assert count == len(rows_of(written, path.stem)) > 0
        if path.suffix == ".parquet":
            assert pq.read_schema(path).equals(schema)
            continue
        rows = rows_of(written, path.stem)
        assert without_nulls(pa.Table.from_pylist(rows, schema=schema).to_pylist()) == without_nulls(rows)
        assert all(set(row) == set(schema.names) for row in rows)


def test_musique_words_a_trajectory_as_the_store_does(sample_store: Path) -> None:
    store, template = Store(sample_store), load_template("musique")
    rollouts = dict(table(sample_store, "trajectories").select("question_id", "rollout").rows())
    found = list(examples(store, store.manifest(), everything=True, with_rejected=False))
    assert len(found) == len(rollouts) > 60
    for one in found:
        assert template.response(one) == rollouts[one.question_id]


@pytest.mark.parametrize(("form", "template"), CASES, ids=lambda case: getattr(case, "name", case))
def test_no_struct_is_empty(form: Any, template: str) -> None:
    """Parquet cannot hold one, and `datasets` would read it as nothing."""

    def structs(kind: pa.DataType) -> Iterator[pa.DataType]:
        if pa.types.is_struct(kind):
            yield kind
            for at in range(kind.num_fields):
                yield from structs(kind.field(at).type)
        elif pa.types.is_list(kind):
            yield from structs(kind.value_type)

    kinds = [kind for field in form.schema(load_template(template)) for kind in structs(field.type)]
    assert all(kind.num_fields for kind in kinds)


@pytest.mark.parametrize("form", NAMES)
def test_the_same_store_gives_the_same_bytes(form: str, export: Export) -> None:
    first = tree(next(iter(export(form).rows)).parent)
    assert tree(next(iter(export(form).rows)).parent) == first


def test_by_default_only_complete_trajectories_are_taken(export: Export, sample_store: Path) -> None:
    trajectories = table(sample_store, "trajectories")
    assert len(complete(sample_store)) < len(trajectories)
    assert len(rows_of(export("verl"))) == len(complete(sample_store))
    assert len(rows_of(export("verl", everything=True))) == len(trajectories)


@pytest.fixture
def judged(sample_store: Path, tmp_path: Path) -> Path:
    """A store whose gates passed two questions into each split, and failed or left out the others."""
    first = complete(sample_store)["question_id"].to_list()[:6]
    splits = ["train", "validation", "train", "validation", "train", ""]
    judged = [(key, split, at < 4) for at, (key, split) in enumerate(zip(first, splits, strict=True))]
    return with_quality(sample_store, tmp_path / "judged", judged)


def test_each_split_of_the_gates_is_a_file(export: Export, judged: Path) -> None:
    first = complete(judged)["question"].to_list()
    written = export("verl", store=judged)
    assert {path.name: rows for path, rows in written.rows.items()} == {"train.parquet": 2, "validation.parquet": 2}
    for split, places in {"train": (0, 2), "validation": (1, 3)}.items():
        rows = rows_of(written, split)
        assert [row["extra_info"]["question"] for row in rows] == [first[at] for at in places]
        assert [(row["extra_info"]["split"], row["extra_info"]["index"]) for row in rows] == [(split, 0), (split, 1)]
    train, validation = path_of(written), path_of(written, "validation")
    assert written.load == f"data.train_files={train} data.val_files={validation}"


def test_one_split_can_be_chosen(export: Export, judged: Path) -> None:
    written = export("llama-factory", store=judged, split="validation")
    assert [path.name for path in written.rows] == ["validation.jsonl"]
    assert written.load.endswith("eval_dataset=stepsearch_validation")
    assert "stepsearch_validation" in (path_of(written, "validation").parent / "dataset_info.json").read_text()


def test_all_takes_what_the_gates_failed_into_its_split_or_train(export: Export, judged: Path) -> None:
    written = export("verl", store=judged, everything=True)
    assert {path.stem: rows for path, rows in written.rows.items()} == {
        "train": len(table(judged, "trajectories")) - 2,
        "validation": 2,
    }


def test_all_puts_what_failed_into_the_split_of_its_group(export: Export, sample_store: Path, tmp_path: Path) -> None:
    """A group that has no split goes into train, whole."""
    keys = complete(sample_store)["question_id"].to_list()[:5]
    splits = ["validation", "", "train", "", ""]
    groups = dict(zip(keys, ["a", "a", "b", "b", "c"], strict=True))
    judged = [(key, split, bool(split)) for key, split in zip(keys, splits, strict=True)]
    store = with_quality(sample_store, tmp_path / "grouped", judged, groups)
    found = {
        example.question_id: (example.split, example.index)
        for example in examples(Store(store), Store(store).manifest(), everything=True, with_rejected=False)
    }
    assert [found[key][0] for key in keys] == ["validation", "validation", "train", "train", "train"]
    assert [found[key][1] for key in keys[:2]] == [0, 1]
    assert len(rows_of(export("verl", store=store))) == 1


@pytest.mark.parametrize("form", ["verl", "sharegpt"])
def test_splits_of_an_earlier_export_are_removed(
    form: str, export: Export, judged: Path, sample_store: Path, tmp_path: Path
) -> None:
    """Of another format too; else a loader of the folder would read both. One split leaves the others alone."""
    folder = path_of(export(form, store=judged)).parent
    suffix = find_format(form).suffix
    names = [f"train.{suffix}", f"validation.{suffix}"]
    assert names_in(folder) == names
    export(form, store=judged, split="train")
    assert names_in(folder) == names
    export(form)
    assert names_in(folder) == names[:1]
    other = find_format({"verl": "sharegpt", "sharegpt": "verl"}[form])
    module.export(Store(sample_store), other, load_template("musique"), folder, Meter(None, ""))
    assert names_in(folder) == [f"train.{other.suffix}"]


def test_files_that_are_no_exports_stay(export: Export, tmp_path: Path) -> None:
    """Such as the rows that the store was built of; and a corpus can lie beside an export."""
    folder = tmp_path / "verl-musique"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"id": "2hop__1_2", "question": "Who?"}\n')
    (folder / "validation.jsonl").touch()
    pq.write_table(pa.table({"question": ["Who?"]}), folder / "validation.parquet")
    (folder / "test.parquet").write_bytes(b"mine")
    before = names_in(folder)
    export("verl")
    assert names_in(folder) == sorted([*before, "train.parquet"])
    (tmp_path / "corpus-musique").symlink_to(folder)
    export("corpus")
    assert names_in(folder) == sorted([*before, "corpus.jsonl", "train.parquet"])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_split_that_the_store_lacks_is_refused(export: Export, judged: Path) -> None:
    with pytest.raises(ConfigError, match="there is no split 'test'") as caught:
        export("verl", store=judged, split="test")
    assert caught.value.hint == "this store has: train, validation"
    with pytest.raises(ConfigError, match="there is no split 'validation'"):
        export("verl", split="validation")


def test_the_corpus_is_every_passage(export: Export, sample_store: Path, cli: Run, tmp_path: Path) -> None:
    written = export("corpus")
    path = path_of(written, "corpus")
    passages = table(sample_store, "passages").to_dicts()
    assert rows_of(written, "corpus") == [
        {"id": passage["passage_id"], "contents": f'"{passage["title"]}"\n{passage["text"]}'} for passage in passages
    ]
    index = tmp_path / "index"
    found = cli("search", passages[0]["title"], "--corpus", path, "--index", index, "-e", "bm25", "--json")
    assert found.returncode == 0, found.stderr
    assert passages[0]["title"] in found.stdout


def test_files_appear_only_when_all_are_whole(export: Export, judged: Path, tmp_path: Path) -> None:
    before = tree(path_of(export("sharegpt", store=judged)).parent)
    form = dataclasses.replace(find_format("sharegpt"), rows=fail_late)
    with pytest.raises(KeyboardInterrupt):
        module.export(Store(judged), form, load_template("musique"), tmp_path / "sharegpt-musique", Meter(None, ""))
    assert tree(tmp_path / "sharegpt-musique") == before


def fail_late(example: Example, _: Template) -> list[Any]:
    if example.index == 1:
        raise KeyboardInterrupt
    return [{"conversations": []}]


def test_a_folder_inside_the_store_is_refused(sample_store: Path) -> None:
    form, template = find_format("verl"), load_template("musique")
    for folder in (sample_store, sample_store / "stages" / "mine"):
        with pytest.raises(StoreError, match="it lies in the store and could damage it"):
            module.export(Store(sample_store), form, template, folder, Meter(None, ""))


def test_nothing_to_write_is_an_error(export: Export, sample_store: Path, tmp_path: Path) -> None:
    store = with_quality(sample_store, tmp_path / "none", [("nobody", "train", True)])
    with pytest.raises(StoreError, match="no trajectory is complete and passed") as caught:
        export("verl", store=store)
    assert "--all" in caught.value.hint
    assert not list((tmp_path / "verl-musique").iterdir())


def test_pairs_need_a_search_that_was_voted_out(export: Export, tmp_path: Path, cli: Run) -> None:
    source = write_lines(tmp_path / "rows.jsonl", [musique("q1")])
    store = tmp_path / "store"
    assert cli("build", "-e", "bm25", "--source", f"musique={source}", "--store", store, "-q").returncode == 0
    assert table(store, "votes")["kept"].all()
    with pytest.raises(StoreError, match="no hop has both a good search and one that the vote rejected"):
        export("trl-dpo", store=store)


def test_a_store_that_is_not_built_to_its_end_says_so(export: Export, tmp_path: Path, cli: Run) -> None:
    assert cli("build", "--to", "queries", "--store", tmp_path / "store", "-q").returncode == 0
    with pytest.raises(StoreError, match="not built to its end"):
        export("verl", store=tmp_path / "store")


def test_a_store_whose_stages_do_not_fit_together_is_refused(
    export: Export, sample_store: Path, tmp_path: Path, cli: Run
) -> None:
    store = with_quality(sample_store, tmp_path / "store", [])
    manifest = (store / "manifest.json").read_text()
    digest = table_digest(store, "rounds")
    (store / "manifest.json").write_text(manifest.replace('"inputs": {}', f'"inputs": {{"rounds": "{digest[::-1]}"}}'))
    with pytest.raises(StoreError, match="not up to date: quality"):
        export("verl", store=store)


def table_digest(store: Path, name: str) -> str:
    output = Store(store).manifest().output(name)
    assert output is not None
    return output.digest


def test_search_keys_are_never_empty(sample_store: Path) -> None:
    """Where every query of a hop was voted out, the chosen one stands for it."""
    store = Store(sample_store)
    found = list(examples(store, store.manifest(), everything=True, with_rejected=False))
    assert any(not step.search.good for one in found for step in one.steps)
    assert all(step.keys and step.keys[0] == step.search.query for one in found for step in one.steps)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".train.{suffix}.part").symlink_to(tmp_path / "mine")
    with Files(tmp_path, suffix, pa.schema([("n", pa.int64())])) as files:
        files.append("train", {"n": 1})
        files.commit(alone=True)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / f"train.{suffix}").is_symlink()


def test_only_what_a_policy_passes_as_often_as_asked(export: Export, sample_store: Path) -> None:
    whole = complete(sample_store)["question_id"].to_list()
    rows = {row["question_id"]: row for row in rows_of(export("curriculum"))}
    assert list(rows) == whole[:-1]  # the last one was not played
    assert {name: rows[name]["band"] for name in whole[:2]} == {whole[0]: "medium", whole[1]: "solved"}
    assert [rows[whole[0]][name] for name in ("right", "rollouts", "pass_rate")] == [1, 2, 0.5]
    for wanted, named in {"medium": whole[:1], "0.2-0.8": whole[:1], "1-1": whole[1:-1], "0-1": whole[:-1]}.items():
        assert [row["question_id"] for row in rows_of(export("trl-grpo", pass_rate=wanted))] == named
    with pytest.raises(StoreError, match="no trajectory has rollouts with such a pass rate"):
        export("trl-grpo", pass_rate="unsolved")


@pytest.mark.parametrize("text", ["", "0.8-0.2", "0-2", "x-y", "0.5", "nan-nan", "0-0.5-1"])
def test_what_is_no_range_of_pass_rates(text: str) -> None:
    with pytest.raises(ConfigError, match="is no range of pass rates"):
        module.parse_rates(text)

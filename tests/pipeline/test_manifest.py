"""A manifest may come from a stranger: what it says is checked once, when it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from stepsearch_data.core.errors import StoreError
from stepsearch_data.pipeline.manifest import Manifest, parse_manifest, with_stage

Json = dict[str, Any]


def output(stage: str, name: str, rows: int | None = 3) -> Json:
    path = f"stages/{stage}-0123456789ab/{name}" + ("" if rows is None else ".parquet")
    return {"path": path, "digest": name[0] * 64 if name[0] in "abcdef" else "0" * 64, "rows": rows, "bytes": 10}


def stage(name: str, reads: Json, *writes: str) -> Json:
    outputs = dict.fromkeys(writes, "columns")
    return {
        "fingerprint": {"version": 1, "config": {}, "inputs": reads, "outputs": outputs},
        "folder": f"stages/{name}-0123456789ab",
        "outputs": {key: output(name, key) for key in (*writes, "rejects")},
    }


def manifest() -> Json:
    """Two stages: `one` writes `apples`, which `two` reads for `bananas`."""
    return {
        "format": 2,
        "stages": {"one": stage("one", {}, "apples"), "two": stage("two", {"apples": "a" * 64}, "bananas")},
    }


def parse(found: Json) -> Manifest:
    return parse_manifest(orjson.dumps(found), "manifest.json")


def test_stages_are_fresh_while_they_were_made_of_what_is_committed() -> None:
    assert parse(manifest()).fresh == {"one", "two"}
    other = manifest()
    other["stages"]["one"]["outputs"]["apples"]["digest"] = "b" * 64
    assert parse(other).fresh == {"one"}


def test_freshness_takes_no_longer_for_a_deep_and_wide_manifest() -> None:
    """Asked stage by stage, two thousand layers of two would not come to an end."""
    stages: Json = {}
    reads: Json = {}
    for layer in range(300):
        names = (f"a{layer}", f"b{layer}")
        for name in names:
            stages[name] = stage(name, reads, f"{name}-rows")
        reads = {f"{name}-rows": name[0] * 64 for name in names}
    assert len(parse({"format": 2, "stages": stages}).fresh) == 600


def one(found: Json) -> Json:
    part: Json = found["stages"]["one"]
    return part


WRONG: dict[str, tuple[Callable[[Json], Any], str]] = {
    "an empty fingerprint": (lambda m: one(m).update(fingerprint={}), "version: Field required"),
    "no fingerprint": (lambda m: one(m).update(fingerprint=None), "stages.one.fingerprint"),
    "inputs that are a list": (lambda m: one(m)["fingerprint"].update(inputs=["apples"]), "inputs: Input should be"),
    "a version in words": (lambda m: one(m)["fingerprint"].update(version="1"), "version: Input should be"),
    "tries that are a list": (lambda m: one(m)["fingerprint"].update(retries=["q1"]), "retries: Input should be"),
    "engines that are a text": (lambda m: one(m)["fingerprint"].update(engines="bm25"), "engines: Input should be"),
    "outputs of nothing": (lambda m: one(m).update(outputs={}), "it writes apples, rejects, and holds"),
    "no rejects": (lambda m: one(m)["outputs"].pop("rejects"), "it writes apples, rejects, and holds apples"),
    "rejects that are a folder": (
        lambda m: one(m)["outputs"].update(rejects=output("one", "rejects", None)),
        "it writes",
    ),
    "another output": (
        lambda m: one(m)["outputs"].update(cherries=output("one", "cherries")),
        "holds apples, cherries",
    ),
    "swapped outputs": (
        lambda m: one(m).update(outputs={"apples": output("one", "rejects"), "rejects": output("one", "apples")}),
        "'stages/one-0123456789ab/rejects.parquet' is not where apples lies",
    ),
    "an absolute path": (lambda m: one(m)["outputs"]["apples"].update(path="/etc/passwd"), "is not where apples lies"),
    "a path out of it": (lambda m: one(m)["outputs"]["apples"].update(path="../apples"), "is not where apples lies"),
    "an absolute folder": (lambda m: one(m).update(folder="/etc"), "is not where apples lies"),
    "another stage's folder": (
        lambda m: one(m).update(stage("two", {}, "apples")),
        "'stages/two-0123456789ab' is not a folder of stage one",
    ),
    "a stage with a path for a name": (
        lambda m: m["stages"].update({"../x": stage("../x", {}, "plums")}),
        "stages.../x.[key]: String should match pattern",
    ),
    "a table of two stages": (lambda m: m["stages"].update(three=stage("three", {}, "apples")), "both write apples"),
    "an output with a path for a name": (
        lambda m: one(m).update(stage("one", {}, "../apples")),
        "[key]: String should match pattern",
    ),
    "fewer than no rows": (lambda m: one(m)["outputs"]["apples"].update(rows=-1), "rows: Input should be greater"),
    "more rows than can be": (lambda m: one(m)["outputs"]["apples"].update(rows=1 << 63), "rows: Input should be less"),
    "no digest": (lambda m: one(m)["outputs"]["apples"].update(digest="x"), "digest: String should match"),
    "a stage that reads itself": (
        lambda m: one(m)["fingerprint"].update(inputs={"apples": "a" * 64}),
        "stages read each other in a circle: one → one",
    ),
    "stages that read each other": (
        lambda m: one(m)["fingerprint"].update(inputs={"bananas": "b" * 64}),
        "stages read each other in a circle: ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_place(case: str) -> None:
    spoil, words = WRONG[case]
    found = manifest()
    spoil(found)
    with pytest.raises(StoreError) as caught:
        parse(found)
    assert caught.value.message.startswith("manifest.json is not a store's manifest: ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_numbers_beyond_json_and_nests_beyond_reason_are_refused() -> None:
    for value in (str(1 << 70), "[" * 500 + "]" * 500):
        text = orjson.dumps(manifest()).decode().replace('"config":{}', f'"config":{{"k":{value}}}')
        with pytest.raises(StoreError, match="is not a store's manifest"):
            parse_manifest(text.encode(), "manifest.json")


def test_a_stage_takes_the_place_of_one_that_wrote_the_same_table() -> None:
    """A store may be older than a stage's name."""
    before = parse(manifest())
    (entry,) = parse({"format": 2, "stages": {"three": stage("three", {}, "bananas")}}).stages.values()
    assert list(with_stage(before, "three", entry).stages) == ["one", "three"]

"""What was published, loaded and pulled back: the same rows, the same store, and clear words where that cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepsearch_data.pipeline.store import Store
from tests.conftest import run_cli
from tests.hub_server import Fault, Hub
from tests.release.conftest import REPO, TOKEN, Command, holds_secret
from tests.release.test_publish import environment
from tests.releases import FORGERIES, forge

pytestmark = pytest.mark.long

Rows = dict[str, dict[str, list[Any]]]
LOAD = """
import json, sys
from datasets import get_dataset_config_names, load_dataset
repo, tag, streaming = sys.argv[1], sys.argv[2], sys.argv[3] == "streaming"
names = get_dataset_config_names(repo, revision=tag)
loaded = {name: load_dataset(repo, name, revision=tag, streaming=streaming) for name in names}
default = load_dataset(repo, revision=tag, streaming=streaming)
json.dump(
    {
        "configs": {name: {split: list(rows) for split, rows in parts.items()} for name, parts in loaded.items()},
        "default": {split: list(rows) for split, rows in default.items()},
    },
    sys.stdout,
)
"""


def load(hub: Hub, tag: str, how: str, folder: Path) -> dict[str, Any]:
    """What `datasets` makes of a tag, in a process of its own."""
    arguments = [sys.executable, "-c", LOAD, REPO, tag, how]
    env = {**environment(hub, folder), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def written(folder: Path) -> Rows:
    """The rows of a release's folder: of each config, of each split."""
    record = json.loads((folder / "release.json").read_text())
    return {
        config: {
            split: [row for path in part["files"] for row in read(folder / path)] for split, part in splits.items()
        }
        for config, splits in record["configs"].items()
    }


def read(path: Path) -> list[Any]:
    rows: list[Any] = pq.read_table(path).to_pylist()
    return rows


@pytest.fixture
def released(hub: Hub, publish: Command) -> Hub:
    """The hub with the small store as v1.0.0."""
    said = publish()
    assert said.code == 0, said.text
    return hub


def test_datasets_loads_what_was_written_by_tag_and_streaming(
    hub: Hub, publish: Command, sample_store: Path, small_store: Path, tmp_path: Path
) -> None:
    assert publish(store=sample_store).code == 0
    first = written(tmp_path / "release")
    assert set(first) == {"trajectories", "sub_questions", "queries", "corpus"}
    assert set(first["trajectories"]) == {"train", "validation"}
    assert publish(store=small_store, tag="v1.1.0").code == 0
    second = written(tmp_path / "release")
    assert len(second["trajectories"]["train"]) < len(first["trajectories"]["train"])

    assert load(hub, "v1.0.0", "whole", tmp_path) == {"configs": first, "default": first["trajectories"]}
    assert load(hub, "v1.0.0", "streaming", tmp_path) == {"configs": first, "default": first["trajectories"]}
    assert load(hub, "main", "whole", tmp_path) == {"configs": second, "default": second["trajectories"]}


def test_a_pulled_store_is_the_one_that_was_published(
    released: Hub, command: Command, small_store: Path, tmp_path: Path
) -> None:
    pulled = tmp_path / "pulled"
    said = command("pull", f"{REPO}@v1.0.0", "--store", pulled)
    assert said.code == 0, said.text
    assert Store(pulled).digest() == Store(small_store).digest()
    assert Store(pulled).digest() in said.out
    assert not list(tmp_path.glob(".pulled*"))
    assert command("audit", "--store", pulled).out == command("audit", "--store", small_store).out
    assert command("verify", pulled).code == 0
    again = command("pull", f"{REPO}@v1.0.0", "--store", pulled)
    assert again.code == 0
    assert "it was there already" in again.out


def test_a_pulled_store_is_built_on(released: Hub, command: Command, tmp_path: Path) -> None:
    pulled = tmp_path / "pulled"
    assert command("pull", REPO, "--store", pulled, "--quiet").code == 0
    built = run_cli("build", "--store", pulled, "--set", "load.limit=4")
    assert built.returncode == 0, built.stderr
    ran = [line for line in built.stderr.splitlines() if "current" not in line]
    assert not any(line.startswith(("load", "decompose", "queries", "filter", "quality")) for line in ran), built.stderr


def test_only_the_store_is_fetched(released: Hub, command: Command, tmp_path: Path) -> None:
    before = len(released.requests)
    assert command("pull", REPO, "--store", tmp_path / "pulled").code == 0
    sha = released.repositories[REPO].branches["main"]
    asked = [request for request in released.requests[before:] if f"/{sha}/" in request]
    assert {request.partition(f"/{sha}/")[2].split("/")[0] for request in asked} == {"release.json", "store"}


@pytest.mark.parametrize("fault", [Fault(cut=100), Fault(503, "", {"Retry-After": "0"})], ids=["cut", "busy"])
def test_a_download_that_is_cut_goes_on(released: Hub, command: Command, tmp_path: Path, fault: Fault) -> None:
    released.fail("download", fault)
    released.fail("resolve", Fault(503, "", {"Retry-After": "0"}))
    said = command("pull", REPO, "--store", tmp_path / "pulled", "--patience", "5")
    assert said.code == 0, said.text


def test_an_interrupted_pull_fetches_only_what_is_missing(released: Hub, command: Command, tmp_path: Path) -> None:
    pulled = tmp_path / "pulled"
    for _ in range(5):
        released.fail("download", Fault())
    released.fail("download", Fault(503), times=100)
    broken = command("pull", REPO, "--store", pulled, "--patience", "0.3")
    assert broken.code == 5
    assert f"{released.storage.removesuffix('/storage')} answers 503" in broken.err
    assert not pulled.exists()
    released.heal()
    before = len(released.requests)
    assert command("pull", REPO, "--store", pulled).code == 0
    fetched = [request for request in released.requests[before:] if request.startswith("GET /storage")]
    tables = [
        path for path in released.repositories[REPO].head if path.startswith("store/") and path.endswith("parquet")
    ]
    assert len(fetched) < len(tables)
    assert command("verify", pulled).code == 0


def test_what_is_damaged_on_the_hub_does_not_become_a_store(released: Hub, command: Command, tmp_path: Path) -> None:
    files = released.repositories[REPO].head
    path = next(path for path in files if path.endswith("/rounds.parquet"))
    whole = files[path]
    files[path] = whole[:-9] + b"!" + whole[-8:]
    checked = command("verify", f"{REPO}@v1.0.0")
    assert checked.code == 1
    assert checked.out.splitlines()[0].split() == ["changed", path]
    said = command("pull", REPO, "--store", tmp_path / "pulled")
    assert said.code == 1
    assert f"is damaged: {path} (changed)" in said.err
    assert not (tmp_path / "pulled").exists()
    files[path] = whole
    assert command("pull", REPO, "--store", tmp_path / "pulled").code == 0


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_release_that_no_build_wrote_leaves_nothing_behind(
    forgery: str, released: Hub, command: Command, tmp_path: Path
) -> None:
    spoil, words = FORGERIES[forgery]
    forge(tmp_path / "release", spoil)
    head = released.repositories[REPO].head
    head.update({path: (tmp_path / "release" / path).read_bytes() for path in ("store/manifest.json", "release.json")})
    said = command("pull", REPO, "--store", tmp_path / "pulls" / "store")
    assert said.code == 1
    assert words in said.err
    assert not [*(tmp_path / "pulls").iterdir()]


def test_verify_tells_what_is_wrong_on_the_hub_without_fetching_data(released: Hub, command: Command) -> None:
    assert command("verify", REPO).code == 0
    files = released.repositories[REPO].head
    del files["data/corpus/train-00000-of-00001.parquet"]
    files["README.md"] += b"More."
    files["data/queries/more.parquet"] = b"PAR1"
    files["notes.md"] = b"mine"
    before = len(released.requests)
    said = command("verify", f"{REPO}@v1.0.0", "--json")
    assert said.code == 1
    found = {finding["path"]: finding["state"] for finding in json.loads(said.out)["findings"]}
    assert {path: state for path, state in found.items() if state != "ok"} == {
        "data/corpus/train-00000-of-00001.parquet": "missing",
        "README.md": "changed",
        "data/queries/more.parquet": "unexpected",
    }
    assert not [request for request in released.requests[before:] if "/storage/" in request]


def test_another_store_is_not_overwritten(released: Hub, command: Command, other_store: Path, tmp_path: Path) -> None:
    digest = Store(other_store).digest()
    said = command("pull", REPO, "--store", other_store)
    assert said.code == 1
    assert f"error: {other_store} holds another store" in said.err
    assert Store(other_store).digest() == digest
    assert not list(other_store.parent.glob(".*"))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    said = command("pull", REPO, "--store", mine)
    assert said.code == 1
    assert "thesis.tex" in said.err
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ann/nothing", "there is no dataset ann/nothing that you may see"),
        (f"{REPO}@v9", "there is no such tag, branch or commit"),
        ("ann/empty", "ann/empty holds no release of stepsearch-data"),
        ("bob/secret", "there is no dataset bob/secret that you may see"),
    ],
    ids=["repository", "tag", "release", "private"],
)
@pytest.mark.parametrize("verb", ["pull", "verify"])
def test_what_is_not_there(released: Hub, command: Command, tmp_path: Path, verb: str, name: str, says: str) -> None:
    released.repository("ann/empty").commit({"README.md": b"# Nothing"})
    released.repository("bob/secret", token="hf_thisIsTheSecretOfSomebodyElse").commit({})
    where = ("--store", tmp_path / "pulled") if verb == "pull" else ()
    said = command(verb, name, *where, "--patience", "1")
    assert said.code == 1
    error, hint = said.err.splitlines()
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")
    assert not (tmp_path / "pulled").exists()


def test_a_record_that_leads_elsewhere_is_refused(released: Hub, command: Command, tmp_path: Path) -> None:
    files = released.repositories[REPO].head
    record = json.loads(files["release.json"])
    record["files"]["store/../../../evil"] = record["files"]["README.md"]
    files["release.json"] = json.dumps(record).encode()
    said = command("pull", REPO, "--store", tmp_path / "pulled")
    assert said.code == 1
    assert "is not a path of a release" in said.err


def test_public_releases_need_no_token(released: Hub, command: Command, tmp_path: Path) -> None:
    assert command("pull", REPO, "--store", tmp_path / "pulled", token="").code == 0
    assert command("verify", REPO, token="").code == 0


def test_the_extra_that_is_missing_is_named() -> None:
    code = "import sys; sys.modules['huggingface_hub'] = None; from stepsearch_data.cli import main; main()"
    arguments = [sys.executable, "-c", code, "pull", REPO]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the Hub needs an extra: there is no huggingface_hub",
        "hint: pip install 'stepsearch-data[hub]'",
    ]


def test_a_client_of_the_hub_that_is_too_old_is_named() -> None:
    """As it comes with the transformers that vLLM takes."""
    code = "import huggingface_hub as hub; hub.__version__ = '1.33.0'; from stepsearch_data.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "pull", REPO], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: the Hub needs huggingface_hub 2: here is 1.33.0"


def test_secrets_are_recognized() -> None:
    assert holds_secret(f"Bearer {TOKEN}")

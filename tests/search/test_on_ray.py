"""A Ray cluster that embeds on its GPUs, which are only names here, and that holds an index in parts: same answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepsearch_data.executors import Executor, open_executor
from stepsearch_data.search import embeddings
from tests.embeddings_server import MODEL
from tests.ray_nodes import nodes
from tests.search.local import ask, build, built, chosen, opened, write
from tests.search.test_dense import CORPUS, QUERIES

pytestmark = pytest.mark.long

Started = tuple[Executor, Path, int]

LIBRARY = '''
"""What sentence-transformers looks like from here. Notes the GPUs of its process, and dies where it is told to."""
import os, signal, sys
from pathlib import Path
import numpy as np
from tests.embeddings_server import vector

class SentenceTransformer:
    def __init__(self, model):
        import ray
        gpus = ray.get_gpu_ids() if ray.is_initialized() else []
        Path(os.environ["TEST_NOTES"], f"{os.getpid()}").write_text(str(len(gpus)))

    def encode(self, texts, **options):
        order = Path(os.environ["TEST_NOTES"], "die")
        if order.exists():
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([vector(text) for text in texts], np.float32)
'''


@pytest.fixture(scope="module", params=[1, 0], ids=["GPUs", "cores"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A cluster of two nodes, with a GPU each or without, the folder of what its models note, and the GPUs of each."""
    pytest.importorskip("ray", exc_type=ImportError)
    folder, notes = tmp_path_factory.mktemp("library"), tmp_path_factory.mktemp("notes")
    (folder / "sentence_transformers.py").write_text(LIBRARY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
        patch.setenv("TEST_NOTES", str(notes))
        patch.syspath_prepend(str(folder))
        with nodes(2, num_gpus=request.param) as started:
            executor = open_executor("ray", 2, address=started.address)
            yield executor, notes, request.param
            executor.close()


@pytest.mark.parametrize("dies", [False, True], ids=["", "killed"])
def test_vectors_are_those_of_one_process(
    dies: bool, cluster: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, notes, gpus = cluster
    monkeypatch.setattr(embeddings, "_SHARD", 8)
    here = chosen("dense", model=MODEL, batch=4)
    there = replace(here, executor=executor)
    found = []
    for engine, name in ((here, "here"), (there, "there")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name / "cache"))
        write(tmp_path / name, CORPUS)
        for note in notes.iterdir():
            note.unlink()
        if dies and engine is there:
            (notes / "die").touch()
        build(engine, tmp_path / name)
        found.append(ask(opened(engine, tmp_path / name), QUERIES))
    of_models = [int(note.read_text()) for note in notes.iterdir()]
    assert len(of_models) >= 2
    assert set(of_models) == {gpus}
    assert found[0] == found[1]
    vectors = [sorted((tmp_path / name).rglob("*.npy")) for name in ("here", "there")]
    assert len(vectors[0]) > 9
    for one, other in zip(*vectors, strict=True):
        assert one.name == other.name
        assert np.array_equal(np.load(one), np.load(other))


@pytest.mark.parametrize("kind", ["bm25", "dense"])
def test_parts_on_nodes_answer_as_one_index(
    kind: str, cluster: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    section = {"model": MODEL} if kind == "dense" else {}
    engine = replace(chosen(kind, parts=3, **section), executor=cluster[0])
    write(tmp_path / "parts", CORPUS)
    build(engine, tmp_path / "parts")
    expected = ask(built(kind, tmp_path / "one", CORPUS, **section), QUERIES)
    assert ask(opened(engine, tmp_path / "parts"), QUERIES) == expected

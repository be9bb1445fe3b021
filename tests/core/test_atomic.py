"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stepsearch_data.core.atomic import alone, place, write_whole, writing
from stepsearch_data.core.errors import StoreError


def make_folder(path: Path, text: str) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text(text)
    return path


def fail_at(path: Path) -> None:
    with writing(path) as part:
        part.write_text("half")
        raise OSError("full")


def test_a_file_that_is_whole_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        write_whole(tmp_path / "file", text)
        assert (tmp_path / "file").read_bytes() == text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_fails_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"one")
    with pytest.raises(OSError, match="full"):
        fail_at(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_processes_that_share_a_file_do_not_share_its_part(tmp_path: Path) -> None:
    with writing(tmp_path / "file", shared=True) as part:
        part.write_text("ours")
        assert str(os.getpid()) in part.name
        write_whole(tmp_path / "file", b"theirs")
    assert (tmp_path / "file").read_text() == "ours"


@pytest.mark.parametrize("link", [".file.part", "file"])
def test_no_link_is_followed(link: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / link).symlink_to(tmp_path / "mine")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


def test_a_folder_that_is_a_link_is_not_emptied(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", "mine")
    (tmp_path / "new").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="new"), alone(tmp_path / "new", StoreError("busy")):
        pass
    assert (tmp_path / "mine" / "inner" / "file").read_text() == "mine"


@pytest.mark.parametrize("earlier", [lambda path: make_folder(path, "old"), lambda path: path.write_text("old")])
def test_a_folder_takes_the_place_of_what_is_there(earlier: Callable[[Path], object], tmp_path: Path) -> None:
    earlier(tmp_path / "target")
    make_folder(tmp_path / ".target.old", "left by a killed process")
    place(make_folder(tmp_path / "made", "new"), tmp_path / "target")
    assert (tmp_path / "target" / "inner" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_cannot_be_placed_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "made":
            raise PermissionError("no")
        return rename(path, target)

    make_folder(tmp_path / "target", "old")
    made = make_folder(tmp_path / "made", "new")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        place(made, tmp_path / "target")
    assert (tmp_path / "target" / "inner" / "file").read_text() == "old"


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int | str] = []
    fsync, rename = os.fsync, Path.rename

    def recorded_fsync(handle: int) -> None:
        done.append(os.fstat(handle).st_ino)
        fsync(handle)

    def recorded_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    place(make_folder(tmp_path / "made", "new"), tmp_path / "target")
    target = tmp_path / "target"
    first = [path.stat().st_ino for path in (target / "inner", target / "inner" / "file", target)]
    assert done == [*first, "rename", tmp_path.stat().st_ino]

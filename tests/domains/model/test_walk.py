"""Which folders under the roots are models."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from domains.errors import ErrorReason
from domains.model.roots import Roots
from domains.model.walk import MAX_DEPTH, model_folders

Problems = list[tuple[Path, ErrorReason, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return (tmp_path / "root").resolve()


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").touch()
    return folder


def walk(*roots: Path, beginnings: Sequence[Path] = ()) -> tuple[list[Path], Problems]:
    problems: Problems = []
    known = Roots(roots)

    def complain(path: Path, reason: ErrorReason, message: str) -> None:
        problems.append((path, reason, message))

    return list(model_folders(known, beginnings or known.folders, complain)), problems


def test_models_are_found_in_a_stable_order(root: Path) -> None:
    made = [model(root / name) for name in ("b", "a/2", "a/1", "c/d/e")]
    assert walk(root) == (sorted(made), [])


def test_a_root_may_be_a_model_itself(root: Path) -> None:
    (root / "model_index.json").touch()
    model(root / "inner")
    assert walk(root) == ([root], [])


def test_nothing_inside_a_model_is_looked_at(root: Path) -> None:
    outer = model(root / "outer")
    model(outer / "unet")
    assert walk(root)[0] == [outer]


def test_the_depth_is_bounded(root: Path) -> None:
    deepest = model(root.joinpath(*"abcdef"[:MAX_DEPTH]))
    model(root.joinpath("x", *"abcdef"[:MAX_DEPTH]))
    assert walk(root)[0] == [deepest]


def test_overlapping_roots_and_symlinks_give_each_model_once(root: Path) -> None:
    one = model(root / "inner" / "one")
    (root / "again").symlink_to(one)
    (root / "ring").symlink_to(root)
    assert walk(root, root / "inner") == ([one], [])


def test_a_symlink_out_of_the_roots_is_named_and_not_followed(root: Path) -> None:
    outside = model(root.parent / "outside")
    (root / "way-out").symlink_to(outside)
    found, problems = walk(root)
    assert found == []
    assert [(path, reason) for path, reason, _ in problems] == [(root / "way-out", ErrorReason.PATH_OUTSIDE_ROOTS)]


def test_a_root_that_is_gone_is_named(root: Path) -> None:
    root.rmdir()
    found, problems = walk(root)
    assert found == []
    assert [(path, reason) for path, reason, _ in problems] == [(root, ErrorReason.PATH_NOT_FOUND)]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="no folder is closed to root")
def test_a_closed_folder_is_named(root: Path) -> None:
    (root / "closed").mkdir(mode=0)
    found, problems = walk(root)
    assert found == []
    assert [path for path, _, _ in problems] == [root / "closed"]


def test_only_below_the_beginnings(root: Path) -> None:
    one = model(root / "a" / "one")
    model(root / "b" / "two")
    assert walk(root, beginnings=[root / "a"])[0] == [one]


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes only on Linux")
def test_a_name_that_is_no_utf8_is_named_and_the_rest_is_found(root: Path) -> None:
    good = model(root / "good")
    model(Path(os.fsdecode(os.fsencode(root) + b"/bad\xff")))
    found, problems = walk(root)
    assert found == [good]
    assert [("bad" in str(path), reason) for path, reason, *_ in problems] == [(True, ErrorReason.INVALID_FIELD)]


def test_roots_with_too_many_folders_are_looked_at_in_part_and_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domains.model.walk._MAX_FOLDERS", 3)
    for name in "abcde":
        (root / name).mkdir()
    found, problems = walk(root)
    assert found == []
    ((_, reason, message),) = problems
    assert (reason, "more than 3 folders" in message) == (ErrorReason.ILLEGAL_STATE, True)
    monkeypatch.setattr("domains.model.walk._MAX_FOLDERS", 7)
    assert walk(root) == ([], [])

"""Only what really lies in a root may be read."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.errors import ErrorReason, PermissionDenied
from domains.model.roots import Roots


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "model").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root-next").mkdir()
    return tmp_path / "root"


def refused(roots: Roots, path: str | Path) -> PermissionDenied:
    with pytest.raises(PermissionDenied) as caught:
        roots.inside(path, "model.path")
    assert caught.value.reason is ErrorReason.PATH_OUTSIDE_ROOTS
    assert caught.value.facts["field"] == "model.path"
    return caught.value


def test_a_path_in_a_root_is_given_as_it_really_is(root: Path) -> None:
    assert Roots([root]).inside(root / "model" / ".." / "model") == root.resolve() / "model"
    assert Roots([root]).inside(root) == root.resolve()
    assert Roots([root]).inside(root / "absent") == root.resolve() / "absent"


@pytest.mark.parametrize("way", ["../elsewhere", "../root-next", "model/../../elsewhere", "..", "/", "/etc/passwd"])
def test_a_way_out_is_refused(root: Path, way: str) -> None:
    refused(Roots([root]), root / way)


def test_a_name_that_begins_like_a_root_is_not_in_it(root: Path) -> None:
    refused(Roots([root]), f"{root}-next")


def test_a_symlink_out_is_refused_and_one_inside_is_followed(root: Path) -> None:
    (root / "out").symlink_to(root.parent / "elsewhere")
    (root / "in").symlink_to(root / "model")
    (root / "twice").symlink_to(root / "out")
    refused(Roots([root]), root / "out")
    refused(Roots([root]), root / "out" / "file.safetensors")
    refused(Roots([root]), root / "twice")
    assert Roots([root]).inside(root / "in") == root.resolve() / "model"


def test_a_symlink_into_another_root_is_followed(root: Path) -> None:
    (root / "out").symlink_to(root.parent / "elsewhere")
    roots = Roots([root, root.parent / "elsewhere"])
    assert roots.inside(root / "out") == (root.parent / "elsewhere").resolve()


def test_a_root_that_is_a_symlink_is_where_it_leads(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert Roots([link]).inside(link / "model") == root.resolve() / "model"
    assert Roots([link, root]).folders == (root.resolve(),)


def test_what_no_system_can_hold_is_refused(root: Path) -> None:
    (root / "ring").symlink_to(root / "ring")
    roots = Roots([root])
    refused(roots, f"{root}/model\0/x")
    refused(roots, root / "ring" / "file")
    assert len(refused(roots, "/" + "x" * 10_000_000).message) < 1000


def test_without_roots_nothing_is_inside(root: Path) -> None:
    assert "none are configured" in refused(Roots([]), root).message


@given(st.text(max_size=60))
def test_any_text_is_inside_or_refused(text: str) -> None:
    here = Path(os.sep, "nowhere", "root")
    try:
        real = Roots([here]).inside(f"{here}/{text}")
    except PermissionDenied:
        return
    assert real == here or here in real.parents

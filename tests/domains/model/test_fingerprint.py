"""The hash names the content, and what has not changed is not read again."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.model.fingerprint import Fingerprints, HashCancelled
from tests.domains.model.folders import age

FILES = ("unet/a.safetensors", "vae/b.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path / "model")


def filled(folder: Path) -> Path:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    age(folder)
    return folder


def test_the_formula_is_the_documented_one(folder: Path) -> None:
    whole = hashlib.sha256()
    for name in FILES:
        whole.update(f"{name}\0{hashlib.sha256(name.encode() * 1000).hexdigest()}\n".encode())
    assert Fingerprints().of_model(folder, FILES) == whole.hexdigest()


def test_the_place_and_the_order_do_not_matter(folder: Path, tmp_path: Path) -> None:
    there = filled(tmp_path / "elsewhere" / "copy")
    assert Fingerprints().of_model(folder, FILES) == Fingerprints().of_model(there, FILES[::-1])


def test_the_names_of_the_files_matter(folder: Path) -> None:
    before = Fingerprints().of_model(folder, FILES)
    (folder / FILES[0]).rename(folder / "unet" / "c.safetensors")
    assert Fingerprints().of_model(folder, ("unet/c.safetensors", FILES[1])) != before


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.data())
def test_one_changed_bit_changes_it(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "one.safetensors"
    fingerprints = Fingerprints()
    path.write_bytes(content)
    before = fingerprints.of_file(path)
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    assert fingerprints.of_file(path) != before


def test_unchanged_files_are_not_read_again(folder: Path) -> None:
    fingerprints = Fingerprints()
    first = fingerprints.of_model(folder, FILES)
    read = fingerprints.read_bytes
    assert read == sum((folder / name).stat().st_size for name in FILES)
    assert fingerprints.of_model(folder, FILES) == first
    assert fingerprints.read_bytes == read


def test_only_the_changed_file_is_read_again(folder: Path) -> None:
    fingerprints = Fingerprints()
    first = fingerprints.of_model(folder, FILES)
    read = fingerprints.read_bytes
    (folder / FILES[0]).write_bytes(b"new")
    assert fingerprints.of_model(folder, FILES) != first
    assert fingerprints.read_bytes == read + 3


def test_a_change_with_the_old_size_and_the_old_time_is_seen(folder: Path) -> None:
    fingerprints = Fingerprints()
    path = folder / FILES[0]
    first, status = fingerprints.of_file(path), path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprints.of_file(path) != first


def test_hashes_are_remembered_over_a_restart(folder: Path) -> None:
    before = Fingerprints()
    first = before.of_model(folder, FILES)
    after = Fingerprints(before.known)
    assert (after.of_model(folder, FILES), after.read_bytes) == (first, 0)


def test_a_file_just_written_is_not_taken_for_settled(folder: Path) -> None:
    (folder / FILES[0]).write_bytes(b"just now")
    fingerprints = Fingerprints()
    fingerprints.of_model(folder, FILES)
    assert [one.path for one in fingerprints.known] == [str(folder / FILES[1])]


def test_hashes_of_gone_folders_are_forgotten(folder: Path, tmp_path: Path) -> None:
    other = filled(tmp_path / "model-2")
    fingerprints = Fingerprints()
    for place in (folder, other):
        fingerprints.of_model(place, FILES)
    fingerprints.forget_all_but([str(other)])
    assert {Path(one.path).parent.parent for one in fingerprints.known} == {other}


def test_hashing_can_be_cancelled_and_remembers_no_half(folder: Path) -> None:
    fingerprints = Fingerprints()
    with pytest.raises(HashCancelled):
        fingerprints.of_model(folder, FILES, lambda: True)
    assert fingerprints.known == ()

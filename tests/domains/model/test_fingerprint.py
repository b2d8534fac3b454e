"""The hash names the content, and what has not changed is not read again."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.model.fingerprint import Fingerprints, HashCancelled, hash_of
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


def of_model(
    fingerprints: Fingerprints, folder: Path, files: Sequence[str], cancelled: Callable[[], bool] = lambda: False
) -> str:
    return hash_of(fingerprints.stamps(folder, {name: (folder / name).resolve() for name in files}, cancelled))


def test_the_formula_is_the_documented_one(folder: Path) -> None:
    whole = hashlib.sha256()
    for name in FILES:
        whole.update(f"{name}\0{hashlib.sha256(name.encode() * 1000).hexdigest()}\n".encode())
    assert of_model(Fingerprints(), folder, FILES) == whole.hexdigest()


def test_the_place_and_the_order_do_not_matter(folder: Path, tmp_path: Path) -> None:
    there = filled(tmp_path / "elsewhere" / "copy")
    assert of_model(Fingerprints(), folder, FILES) == of_model(Fingerprints(), there, FILES[::-1])


def test_the_names_of_the_files_matter(folder: Path) -> None:
    before = of_model(Fingerprints(), folder, FILES)
    (folder / FILES[0]).rename(folder / "unet" / "c.safetensors")
    assert of_model(Fingerprints(), folder, ("unet/c.safetensors", FILES[1])) != before


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
    first = of_model(fingerprints, folder, FILES)
    read = fingerprints.read_bytes
    assert read == sum((folder / name).stat().st_size for name in FILES)
    assert of_model(fingerprints, folder, FILES) == first
    assert fingerprints.read_bytes == read


def test_only_the_changed_file_is_read_again(folder: Path) -> None:
    fingerprints = Fingerprints()
    first = of_model(fingerprints, folder, FILES)
    read = fingerprints.read_bytes
    (folder / FILES[0]).write_bytes(b"new")
    assert of_model(fingerprints, folder, FILES) != first
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
    first = of_model(before, folder, FILES)
    after = Fingerprints(before.known)
    assert (of_model(after, folder, FILES), after.read_bytes) == (first, 0)


def test_a_file_just_written_is_not_taken_for_settled(folder: Path) -> None:
    (folder / FILES[0]).write_bytes(b"just now")
    fingerprints = Fingerprints()
    of_model(fingerprints, folder, FILES)
    assert [one.path for one in fingerprints.known] == [str(folder / FILES[1])]


def test_hashes_of_gone_folders_are_forgotten(folder: Path, tmp_path: Path) -> None:
    other = filled(tmp_path / "model-2")
    fingerprints = Fingerprints()
    for place in (folder, other):
        of_model(fingerprints, place, FILES)
    fingerprints.forget_all_but([str(other)])
    assert {Path(one.path).parent.parent for one in fingerprints.known} == {other}


def test_hashing_can_be_cancelled_and_remembers_no_half(folder: Path) -> None:
    fingerprints = Fingerprints()
    with pytest.raises(HashCancelled):
        of_model(fingerprints, folder, FILES, lambda: True)
    assert fingerprints.known == ()


def test_a_file_that_changes_while_it_is_hashed_is_refused(folder: Path) -> None:
    fingerprints = Fingerprints()
    path = folder / FILES[0]

    def grow() -> bool:
        with path.open("ab") as file:
            file.write(b"more")
        return False

    with pytest.raises(OSError, match="changed while it was read"):
        fingerprints.of_file(path, grow)
    assert fingerprints.known == ()


def test_a_young_files_stamp_has_no_state_by_which_a_change_could_be_missed(folder: Path) -> None:
    (folder / FILES[0]).write_bytes(b"just now")
    young, settled = Fingerprints().stamps(folder, {name: folder / name for name in FILES})
    assert young.state == ""
    assert settled.state != ""

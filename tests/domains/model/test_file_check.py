"""The check of a weight file: what is told of a file that changes while it is read."""

import errno
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from domains.errors import ErrorReason, ResourceExhausted
from domains.model.diffusers_folder import read_folder
from domains.model.file_check import check_file
from domains.model.fingerprint import Fingerprints, HashCancelled
from domains.model.roots import Roots
from domains.model.validation import Depth
from tests.domains.model.folders import UNET_TENSORS, write_model

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("pass_no", [1, 2], ids=["while it is hashed", "while its values are read"])
def test_a_file_that_is_cut_off_meanwhile_is_not_called_damaged(tmp_path: Path, pass_no: int) -> None:
    folder = write_model(tmp_path / "m")
    # Larger than a buffer of the reader, so that the second read meets the end.
    save_file({name: np.ones(65536, "float16") for name in UNET_TENSORS}, folder / UNET)
    model = read_folder(folder, "m", Roots([tmp_path]).inside, Fingerprints())
    stamp = next(one for one in model.files if one.path == UNET)
    file, size_bytes, read = Path(stamp.real), stamp.size_bytes or 0, 0

    def cut(size: int) -> None:
        nonlocal read
        before, read = read, read + size
        if pass_no == 1 or before >= size_bytes:
            os.truncate(file, 256)

    checked = check_file(model, stamp, Depth.VALUES, lambda: False, cut)
    assert [one.reason for one in checked.findings] == [ErrorReason.ILLEGAL_STATE]
    assert not checked.damaged


def test_a_damaged_header_is_told_beside_the_hash(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    model = read_folder(folder, "m", Roots([tmp_path]).inside, Fingerprints())
    stamp = next(one for one in model.files if one.path == UNET)
    (folder / UNET).write_bytes(b"\xff" * 100)
    checked = check_file(model, stamp, Depth.VALUES, lambda: False, lambda size: None)
    assert [(one.reason, one.field) for one in checked.findings[-1:]] == [(ErrorReason.MODEL_CORRUPT, UNET)]
    assert (checked.size_bytes, checked.tensor_count, checked.non_finite_count) == (100, 0, None)
    assert checked.hashes is not None


def test_a_system_without_descriptors_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = read_folder(write_model(tmp_path / "m"), "m", Roots([tmp_path]).inside, Fingerprints())

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(ResourceExhausted):
        check_file(model, model.stamp(UNET), Depth.VALUES, lambda: False, lambda size: None)


@pytest.mark.parametrize("written", [False, True], ids=["not written since", "written since"])
@pytest.mark.parametrize("tensors", [False, True], ids=["another header", "other tensors"])
def test_another_hash_is_told_with_what_differs_and_whether_the_file_was_written_since(
    tmp_path: Path, written: bool, tensors: bool
) -> None:
    model = read_folder(write_model(tmp_path / "m"), "m", Roots([tmp_path]).inside, Fingerprints())
    stamp = next(one for one in model.files if one.path == UNET)
    whole = check_file(model, stamp, Depth.CHECKSUM, lambda: False, lambda size: None)
    assert (whole.findings, whole.damaged) == ((), False)
    assert whole.hashes is not None
    noted = msgspec.structs.replace(
        stamp,
        sha256="0" * 64,
        state="another" if written else whole.hashes.state,
        tensor_sha256="0" * 64 if tensors else whole.hashes.tensor_sha256,
    )
    found = check_file(model, noted, Depth.CHECKSUM, lambda: False, lambda size: None)
    (finding,) = found.findings
    assert (finding.reason, finding.field, found.damaged) == (ErrorReason.MODEL_CORRUPT, UNET, not written)
    assert ("its content differs" in finding.message, "its header or metadata" in finding.message) == (
        tensors,
        not tensors,
    )
    assert ("it was written since" in finding.message, "damaged it" in finding.message) == (written, not written)
    assert whole.hashes.sha256 in finding.message


def test_numbers_that_are_not_finite_are_counted_tensor_by_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = write_model(tmp_path / "m"), list[int]()
    values = {name: np.ones(8, "float32") for name in UNET_TENSORS}
    first, second = sorted(values)[:2]
    values[first][:] = [1, np.nan, 1, np.inf, -np.inf, 1, 1, 1]
    values[second][7] = np.nan
    save_file(values, folder / UNET)
    model = read_folder(folder, "m", Roots([tmp_path]).inside, Fingerprints())
    monkeypatch.setattr("domains.model.file_check._PIECE", 12)
    found = check_file(model, model.stamp(UNET), Depth.VALUES, lambda: False, read.append)
    assert (found.non_finite_count, found.tensor_count) == (4, len(UNET_TENSORS))
    assert [one.field for one in found.findings] == [f"{UNET}:{first}", f"{UNET}:{second}"]
    assert "has 3 NaN or infinite values of 8" in found.findings[0].message
    assert "has 1 NaN or infinite values of 8" in found.findings[1].message
    assert set(read[-3:]) == {12, 8}, "in pieces"
    with pytest.raises(HashCancelled):
        check_file(model, model.stamp(UNET), Depth.VALUES, lambda: len(read) > 0, read.append)

"""A weight file that is opened for a load is the one that its scan saw."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, ResourceExhausted
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model
from domains.model.roots import Roots
from domains.model.safetensors_header import read_header
from domains.model.weight_file import WeightFile, open_judged
from tests.domains.model.folders import UNET_TENSORS, age, write_model
from tests.open_files import open_within

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    age(write_model(tmp_path / "m"))
    return read_folder(tmp_path / "m", "m", Roots([tmp_path]).inside, Fingerprints())


def place(model: Model) -> Path:
    return Path(model.stamp(UNET).real)


def checked(file: WeightFile) -> int:
    return sum(1 for _ in file.checked())


def test_its_tensors_are_read_at_their_places(model: Model) -> None:
    content = place(model).read_bytes()
    with WeightFile(model, UNET) as file:
        assert set(file.tensors) == set(UNET_TENSORS)
        assert (file.component, file.name, file.size_bytes) == ("unet", place(model).name, len(content))
        assert file.state == model.stamp(UNET).state
        tensor = file.tensors[UNET_TENSORS[1]]
        memory = bytearray(tensor.end - tensor.begin)
        file.read_at(file.place_of(tensor), memoryview(memory))
        begin = 8 + int.from_bytes(content[:8], "little") + tensor.begin
        assert memory == content[begin : begin + len(memory)]
        descriptor = file.descriptor
        assert os.fstat(descriptor).st_ino == place(model).stat().st_ino
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_what_has_not_changed_is_not_read_to_check_it(model: Model) -> None:
    with WeightFile(model, UNET) as file:
        assert checked(file) == 0
        assert file.unchanged


def test_a_copy_with_the_same_content_is_accepted_after_a_reading(model: Model) -> None:
    shutil.copy(place(model), place(model).with_suffix(".copy"))
    os.replace(place(model).with_suffix(".copy"), place(model))
    with WeightFile(model, UNET) as file:
        assert checked(file) == 1


def rewritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_other_content_in_its_place_is_refused(model: Model) -> None:
    rewritten(place(model))
    with WeightFile(model, UNET) as file, pytest.raises(FailedPrecondition, match="other content") as caught:
        checked(file)
    assert (caught.value.reason, caught.value.facts["component"]) == (ErrorReason.ILLEGAL_STATE, "unet")


def touched(path: Path) -> None:
    os.utime(path, (1, 1))


def shortened(path: Path) -> None:
    os.truncate(path, 300)


@pytest.mark.parametrize("change", [rewritten, touched, shortened])
def test_a_write_after_the_opening_is_noticed(model: Model, change: Callable[[Path], None]) -> None:
    with WeightFile(model, UNET) as file:
        file.check_unchanged()
        change(place(model))
        assert not file.unchanged
        with pytest.raises(FailedPrecondition, match="scan again"):
            file.check_unchanged()


def test_a_file_that_was_moved_away_is_not_unchanged_but_its_content_is(model: Model) -> None:
    with WeightFile(model, UNET) as file:
        place(model).unlink()
        assert not file.unchanged
        file.check_unchanged()


def test_a_file_that_is_cut_off_is_corrupt(model: Model) -> None:
    # Larger than a buffer of the reader.
    save_file({name: np.ones(65536, "float16") for name in UNET_TENSORS}, place(model))
    size = place(model).stat().st_size
    with WeightFile(model, UNET) as file:
        os.truncate(place(model), size - 1)
        with pytest.raises(DataLoss, match="cut off while its content") as caught:
            checked(file)
        assert caught.value.reason is ErrorReason.MODEL_CORRUPT
        with pytest.raises(DataLoss, match=rf"bytes {size - 2}\.\.{size} were read"):
            file.read_at(size - 2, memoryview(bytearray(2)))
        file.read_at(size - 2, memoryview(bytearray(1)))


def test_a_damaged_header_is_corrupt_and_leaves_no_descriptor_open(model: Model) -> None:
    place(model).write_bytes(b"\xff" * 64)
    with pytest.raises(DataLoss):
        WeightFile(model, UNET)
    assert not open_within(place(model))


def test_a_file_that_is_gone_or_replaced_by_a_link_is_named(model: Model, tmp_path: Path) -> None:
    shutil.move(place(model), tmp_path / "elsewhere")
    with pytest.raises(FailedPrecondition, match=f"has no {UNET}") as gone:
        open_judged(model, UNET)
    assert gone.value.reason is ErrorReason.COMPONENT_MISSING
    place(model).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FailedPrecondition, match="not where its scan found it") as linked:
        open_judged(model, UNET)
    assert linked.value.reason is ErrorReason.ILLEGAL_STATE


def test_a_folder_that_was_swapped_for_a_link_is_not_entered(model: Model, tmp_path: Path) -> None:
    folder = place(model).parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FailedPrecondition, match="not where its scan found it"):
        open_judged(model, UNET)


def test_a_pipe_in_its_place_does_not_hold_up_a_load(model: Model) -> None:
    place(model).unlink()
    os.mkfifo(place(model))
    with pytest.raises(DataLoss, match="no regular file") as caught:
        open_judged(model, UNET)
    assert caught.value.reason is ErrorReason.MODEL_CORRUPT
    if sys.platform == "linux":
        assert not open_within(place(model))


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.EMFILE, ErrorReason.QUOTA_EXCEEDED), (errno.ENOMEM, ErrorReason.HOST_OUT_OF_MEMORY)],
    ids=["no descriptor", "no memory"],
)
@pytest.mark.parametrize("judged", [True, False])
def test_a_file_that_nothing_is_left_to_open_with_is_not_called_corrupt(
    model: Model, monkeypatch: pytest.MonkeyPatch, judged: bool, code: int, reason: ErrorReason
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(ResourceExhausted) as caught:
        _ = open_judged(model, UNET) if judged else read_header(place(model))
    assert caught.value.reason is reason


def test_a_disk_that_fails_is_told_with_the_file(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    class Broken:
        def seek(self, at: int) -> None:
            pass

        def read(self, size: int) -> bytes:
            raise OSError(5, "Input/output error")

    os.utime(place(model), (1, 1))
    with WeightFile(model, UNET) as file:
        with monkeypatch.context() as patched:
            patched.setattr(os, "preadv", broken)
            with pytest.raises(DataLoss, match="cannot be read: Input/output error"):
                file.read_at(0, memoryview(bytearray(1)))
        whole = file._file  # pyright: ignore[reportPrivateUsage]  # no disk here fails at will
        file._file = Broken()  # pyright: ignore
        with pytest.raises(DataLoss, match="cannot be read: Input/output error"):
            checked(file)
        file._file = whole  # pyright: ignore


def test_a_file_without_a_hash_is_the_one_that_was_seen_or_refused(model: Model) -> None:
    """No content can prove that a file with other times is the one of the scan."""
    stamps = tuple(msgspec.structs.replace(one, sha256="") for one in model.files)
    unhashed = msgspec.structs.replace(model, files=stamps)
    with WeightFile(unhashed, UNET) as file:
        assert checked(file) == 0
    touched(place(model))
    with WeightFile(unhashed, UNET) as file, pytest.raises(FailedPrecondition) as refused:
        checked(file)
    assert refused.value.reason is ErrorReason.ILLEGAL_STATE
    stateless = tuple(msgspec.structs.replace(one, sha256="", state="") for one in model.files)
    with WeightFile(msgspec.structs.replace(model, files=stateless), UNET) as file:
        assert checked(file) == 0


def test_a_system_without_reads_at_a_place_reads_one_after_the_other(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = place(model).read_bytes()
    with WeightFile(model, UNET) as file:
        monkeypatch.setattr(sys, "platform", "win32")
        for at, size in ((8, 16), (0, 8), (len(content) - 3, 3)):
            memory = bytearray(size)
            file.read_at(at, memoryview(memory))
            assert memory == content[at : at + size]
        with pytest.raises(DataLoss, match="was cut off while its bytes"):
            file.read_at(len(content) - 3, memoryview(bytearray(4)))

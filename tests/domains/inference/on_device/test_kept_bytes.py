"""Files that the front keeps for a worker."""

import errno
from hashlib import sha256
from pathlib import Path

import pytest

from domains.errors import DataLoss, DeviceOpsError, ErrorReason
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.kept_bytes import kept_bytes

CORRUPT = ErrorReason.BLOB_CORRUPT


def read(path: Path, content: bytes) -> bytes:
    file = KeptFile(path=str(path), sha256=sha256(content).hexdigest())
    return kept_bytes(file, lambda why: DataLoss(f"the pixels {why}", CORRUPT))


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EMFILE, ErrorReason.QUOTA_EXCEEDED),
        (errno.ENFILE, ErrorReason.QUOTA_EXCEEDED),
        (errno.ENOMEM, ErrorReason.HOST_OUT_OF_MEMORY),
        (errno.EIO, CORRUPT),
        (errno.ENOENT, CORRUPT),
    ],
)
def test_a_file_is_not_called_corrupt_where_the_system_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: ErrorReason
) -> None:
    def refuse(path: Path) -> bytes:
        raise OSError(number, "no", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DeviceOpsError) as told:
        read(tmp_path / "pixels", b"")
    assert told.value.reason is reason


def test_content_that_has_changed_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "pixels").write_bytes(b"one")
    assert read(tmp_path / "pixels", b"one") == b"one"
    with pytest.raises(DataLoss, match="the pixels changed"):
        read(tmp_path / "pixels", b"other")

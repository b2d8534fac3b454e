"""Files of pictures are read out of blobs up to their limit."""

from pathlib import Path

import pytest

from domains.errors import InvalidRequest
from domains.inference import limits
from domains.processing.inputs.picture_reader import PictureReader
from tests.domains.memory.blobs import opened, uploaded


async def test_a_blob_is_read_up_to_the_size_of_a_picture_and_not_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as blobs:
        blob, reader = await uploaded(blobs, b"0123"), PictureReader(blobs)
        monkeypatch.setattr(limits, "INPUT_BYTES", 4)
        assert await reader.file(blob.id, "image") == b"0123"
        monkeypatch.setattr(limits, "INPUT_BYTES", 3)
        with pytest.raises(InvalidRequest, match="at most 3") as refused:
            await reader.file(blob.id, "image")
        assert [each.field for each in refused.value.violations] == ["image.blob_id"]

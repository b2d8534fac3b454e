"""Files of pictures are read out of blobs up to their limit."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domains.errors import InvalidRequest
from domains.inference import limits
from domains.inference.controls import PictureSource
from domains.processing.inputs.image_prompt_pictures import ImagePromptPictures
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


async def test_pictures_of_image_prompts_are_read_where_there_are_some() -> None:
    asked = list[tuple[object, str]]()

    async def look(source: object, field: str) -> str:
        asked.append((source, field))
        return "picture"

    pictures: Any = SimpleNamespace(look=look)
    reader = ImagePromptPictures(pictures)
    source = PictureSource(blob_id="b")
    assert await reader.look(None, "region") is None
    assert await reader.look(source, "generation.image_prompts[0].region") == "picture"
    assert asked == [(source, "generation.image_prompts[0].region")]

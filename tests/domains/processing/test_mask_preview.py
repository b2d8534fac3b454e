"""What a preview says of a mask, and how long its picture is kept."""

import io
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from domains.inference.controls import Control, PictureSource, Preprocessing, ResolvedControl, UsedPicture
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.image_fit import ImageFit
from domains.inference.init_image import ResolvedInitImage
from domains.inference.masks import InpaintMask, MaskBlend, MaskFill, ResolvedMask
from domains.memory.blobs.blob import BlobState
from domains.processing.control_preview import ControlPreviews
from domains.processing.mask_preview import MaskPreviews, figures
from domains.processing.shown_pictures import shown
from tests.domains.inference.on_device.requests import embedded_model, request
from tests.domains.memory.blobs import content, opened, sha


def test_an_empty_mask_has_no_regions() -> None:
    assert figures(np.zeros((8, 8), np.float32)) == (0.0, 0, 0.0)


def test_a_mask_is_told_by_its_share_its_regions_and_its_edge() -> None:
    mask = np.zeros((8, 8), np.float32)
    mask[0:4, 0:4] = 1.0
    # A corner joins this pixel to the square; the picture's own edge is no edge of the region.
    mask[4, 4] = 0.25
    assert figures(mask) == (17 / 64, 1, pytest.approx(8 / 17))
    mask[7, 0] = 0.01
    assert figures(mask)[:2] == (18 / 64, 2)
    assert figures(np.ones((8, 8), np.float32)) == (1.0, 1, 0.0)


async def test_a_shown_picture_is_kept_for_an_hour_and_once(tmp_path: Path) -> None:
    with opened(tmp_path) as blobs:
        blob = await shown(blobs, b"png")
        assert (blob.state, blob.sha256, blob.media_type) == (BlobState.READY, sha(b"png"), "image/png")
        assert blob.expire_time_s == pytest.approx(time.time() + 3600, abs=60)
        assert (await shown(blobs, b"png")).state is BlobState.READY
        assert await content(blobs, blob.id) == b"png"


class Levels:
    """Pictures of a request: a mask with one painted square, and a grey map."""

    def __init__(self) -> None:
        self.grey = np.zeros((48, 64), np.uint8)
        self.grey[8:24, 16:32] = 255
        self.asked: list[object] = []

    async def levels(self, asked: object, resolved: object) -> bytes:
        self.asked.append(asked)
        return self.grey.tobytes()

    async def pixels_of(self, source: object, field: str) -> Any:
        self.asked.append((source, field))
        return np.full((48, 64, 3), 200, np.uint8)


def masked(**changes: Any) -> ResolvedGeneration:
    plain = ResolvedMask(
        blob_id="m",
        sha256="1" * 64,
        blur_px=0,
        dilation_px=0,
        invert=False,
        blend=MaskBlend.NONE,
        fill=MaskFill.ORIGINAL,
    )
    start = ResolvedInitImage(blob_id="b", sha256="0" * 64, strength=1.0, fit=ImageFit.COVER)
    return request(
        embedded_model(), width_px=64, height_px=48, init_image=start, mask=msgspec.structs.replace(plain, **changes)
    )


@pytest.mark.parametrize(
    ("changes", "share", "regions"),
    [
        ({"dilation_px": 0}, 16 * 16, 1),
        ({"dilation_px": 0, "invert": True}, 64 * 48 - 16 * 16, 1),
        ({"dilation_px": 2}, 20 * 20, 1),
    ],
)
async def test_a_mask_is_analysed_as_it_is_read_and_shown_with_its_ramp(
    tmp_path: Path, changes: dict[str, Any], share: int, regions: int
) -> None:
    levels: Any = Levels()
    asked = InpaintMask(blob_id="b")
    with opened(tmp_path) as blobs:
        found = await MaskPreviews(levels, blobs).of(asked, masked(**changes))
        assert found is not None
        assert found.painted_ratio == pytest.approx(share / (64 * 48), rel=0.05)
        assert (found.region_count, found.width_px, found.height_px) == (regions, 64, 48)
        assert 0.0 < found.edge_density_ratio < 1.0
        shown_mask = np.asarray(Image.open(io.BytesIO(await content(blobs, found.blob.id))))
        assert shown_mask.shape == (48, 64)
        assert bool((shown_mask > 127).mean() > 0.5) is changes.get("invert", False)
        assert levels.asked == [asked]
        assert await MaskPreviews(levels, blobs).of(asked, request(embedded_model())) is None


@pytest.mark.parametrize("kind", ["", "canny", "inpaint"])
async def test_the_map_of_a_control_is_shown_in_the_size_that_the_network_sees(tmp_path: Path, kind: str) -> None:
    levels: Any = Levels()
    options = (("low_threshold", 100.0), ("high_threshold", 200.0)) if kind == "canny" else ()
    preprocessing = Preprocessing(kind=kind, options=options) if kind else None
    used = UsedPicture(blob_id="b", sha256="0" * 64)
    control = ResolvedControl(
        model_id="net", model_sha256="1" * 64, image=used, fit=ImageFit.COVER, preprocessing=preprocessing
    )
    asked = Generation(
        prompt="p",
        controls=(Control(model_id="net", image=PictureSource(blob_id="b")),) * 2,
        mask=InpaintMask(blob_id="m"),
    )
    resolved = msgspec.structs.replace(masked(dilation_px=0), controls=(control, control))
    with opened(tmp_path) as blobs:
        first, second = await ControlPreviews(levels, blobs).of(asked, resolved)
        assert [(one.index, one.width_px, one.height_px) for one in (first, second)] == [(0, 64, 48), (1, 64, 48)]
        pixels = np.asarray(Image.open(io.BytesIO(await content(blobs, first.blob.id))))
    assert pixels.shape == (48, 64, 3)
    fields = [one[1] for one in levels.asked if isinstance(one, tuple)]
    assert fields == ["generation.controls[0].image", "generation.controls[1].image"]
    inside, outside = pixels[16, 24], pixels[40, 8]
    if kind == "inpaint":
        assert (inside.max(), outside.max()) == (0, 200), "the part that is made anew is black"
    else:
        assert inside.tolist() == outside.tolist() == ([200] * 3 if not kind else [0] * 3)

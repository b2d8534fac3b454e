"""What a preview says of a mask, and how long its picture is kept."""

import time
from pathlib import Path

import numpy as np
import pytest

from domains.memory.blobs.blob import BlobState
from domains.processing.mask_preview import figures
from domains.processing.shown_pictures import shown
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

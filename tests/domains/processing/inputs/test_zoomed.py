"""Pictures that guide a zoomed part are cut as the part itself is."""

import msgspec
import numpy as np
import pytest

from domains.inference.generation import ResolvedGeneration
from domains.inference.on_device.scene import Scene
from domains.processing.inputs.zoomed import Zoomed
from tests.domains.inference.on_device.from_picture import from_picture
from tests.domains.inference.on_device.masked import mask
from tests.domains.inference.on_device.requests import embedded_model, request

PIXELS = np.random.default_rng(3).integers(0, 256, (96, 120, 3), np.uint8)


def resolved(padding: int | None, **changes: object) -> ResolvedGeneration:
    start = msgspec.structs.replace(from_picture(1.0), own_size_px=(120, 96), fit=None)
    part = mask(**{"zoom_padding_px": padding, "dilation_px": 2, **changes})
    return request(embedded_model(), width_px=64, height_px=48, init_image=start, mask=part)


@pytest.mark.parametrize("invert", [False, True])
def test_a_map_is_cut_and_enlarged_as_the_picture_is(invert: bool) -> None:
    grey = np.full((96, 120), 255 if invert else 0, np.uint8)
    grey[30:44, 50:75] = 0 if invert else 255
    wanted = resolved(6, invert=invert)
    zoomed, scene = Zoomed(wanted, grey.tobytes()), Scene(wanted, PIXELS, grey)
    assert np.array_equal(zoomed.part(PIXELS), scene.start)
    assert zoomed.part(np.ascontiguousarray(PIXELS[..., 0])).shape == (48, 64)
    hidden = np.frombuffer(zoomed.hidden(), np.uint8).reshape(48, 64)
    assert np.array_equal(hidden > 0, scene.shares > 0.5)
    assert 0 < hidden.mean() < 255


def test_an_empty_mask_and_none_that_zooms_leave_the_whole() -> None:
    nothing = Zoomed(resolved(6), bytes(120 * 96))
    assert nothing.part(PIXELS) is PIXELS
    whole = Zoomed(resolved(None))
    assert (whole.needs_levels, whole.whole_px, whole.part(PIXELS) is PIXELS) == (False, (64, 48), True)

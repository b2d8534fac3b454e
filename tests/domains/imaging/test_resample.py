"""A picture brought to a size by a named filter is what Pillow makes with it."""

import numpy as np
import pytest
from PIL import Image

from domains.imaging.resample import Filter, resampled

NOISE = np.random.default_rng(2).integers(0, 256, (20, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("lanczos", Image.Resampling.LANCZOS),
        ("bicubic", Image.Resampling.BICUBIC),
        ("bilinear", Image.Resampling.BILINEAR),
        ("area", Image.Resampling.BOX),
        ("nearest", Image.Resampling.NEAREST),
    ],
)
def test_each_filter_is_pillows(name: Filter, way: Image.Resampling) -> None:
    np.testing.assert_array_equal(
        resampled(NOISE, 30, 50, name), np.asarray(Image.fromarray(NOISE).resize((30, 50), way))
    )

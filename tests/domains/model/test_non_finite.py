"""NaN and infinite values are counted in every dtype, and no other value is."""

import math
import struct

import numpy as np
import pytest

from domains.model.non_finite import item_bytes, non_finite

BAD = {
    "F64": [struct.pack("<d", each) for each in (math.nan, math.inf, -math.inf)] + [b"\1" + bytes(5) + b"\xf0\x7f"],
    "F32": [struct.pack("<f", each) for each in (math.nan, math.inf, -math.inf)] + [b"\1\0\x80\xff"],
    "C64": [struct.pack("<f", math.nan)],
    "F16": [np.float16(each).tobytes() for each in (math.nan, math.inf, -math.inf)] + [b"\1\x7c"],
    "BF16": [b"\x80\x7f", b"\x80\xff", b"\xc0\x7f", b"\x81\x7f"],
    "F8_E5M2": [b"\x7c", b"\xfc", b"\x7d", b"\xff"],
    "F8_E4M3": [b"\x7f", b"\xff"],
    "F8_E4M3FNUZ": [b"\x80"],
    "F8_E5M2FNUZ": [b"\x80"],
    "F8_E8M0": [b"\xff"],
}
GOOD = {
    "F64": [struct.pack("<d", each) for each in (0.0, -1.0, 1.7976931348623157e308, 5e-324)],
    "F32": [struct.pack("<f", each) for each in (0.0, -1.0, 3.4028234663852886e38)]
    + [b"\1\0\0\0", b"\xff\xff\x7f\xff"],
    "C64": [struct.pack("<f", -1.0)],
    "F16": [np.float16(each).tobytes() for each in (0.0, -1.0, 65504.0)] + [b"\1\0", b"\xff\xfb"],
    "BF16": [b"\x7f\x7f", b"\0\0", b"\x01\0", b"\x80\xbf"],
    "F8_E5M2": [b"\x7b", b"\xfb", b"\0", b"\x01"],
    "F8_E4M3": [b"\x7e", b"\xfe", b"\0"],
    "F8_E4M3FNUZ": [b"\x7f", b"\xff", b"\0", b"\x81"],
    "F8_E5M2FNUZ": [b"\x7f", b"\xff", b"\0"],
    "F8_E8M0": [b"\xfe", b"\x7f", b"\0"],
}


@pytest.mark.parametrize("dtype", BAD)
def test_only_what_is_not_finite_is_counted(dtype: str) -> None:
    assert non_finite(dtype, b"".join(BAD[dtype])) == len(BAD[dtype])
    assert non_finite(dtype, b"".join(GOOD[dtype])) == 0
    assert item_bytes(dtype) == len(BAD[dtype][0])


def test_whole_numbers_are_always_finite() -> None:
    assert [item_bytes(dtype) for dtype in ("I64", "U8", "BOOL")] == [0, 0, 0]

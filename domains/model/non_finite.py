"""Counts the NaN and infinite values among stored floating-point numbers, on their bits, so that each dtype has them."""

from typing import Any

import msgspec


class _Special(msgspec.Struct, frozen=True):
    """A number is not finite if its bits under `mask` equal `value`."""

    item_bytes: int
    mask: int
    value: int


_F32 = _Special(4, 0x7F800000, 0x7F800000)
_SPECIALS = {
    "F64": _Special(8, 0x7FF0000000000000, 0x7FF0000000000000),
    "F32": _F32,
    "C64": _F32,
    "F16": _Special(2, 0x7C00, 0x7C00),
    "BF16": _Special(2, 0x7F80, 0x7F80),
    "F8_E5M2": _Special(1, 0x7C, 0x7C),
    "F8_E4M3": _Special(1, 0x7F, 0x7F),
    "F8_E4M3FNUZ": _Special(1, 0xFF, 0x80),
    "F8_E5M2FNUZ": _Special(1, 0xFF, 0x80),
    "F8_E8M0": _Special(1, 0xFF, 0xFF),
}
"""By the dtype of safetensors. F8_E4M3 has no infinity; FNUZ formats have one NaN, where others have minus zero."""


def item_bytes(dtype: str) -> int:
    """Bytes of a number that can be NaN or infinite. 0: numbers of this dtype are always finite."""
    special = _SPECIALS.get(dtype)
    return special.item_bytes if special else 0


def non_finite(dtype: str, data: bytes | memoryview) -> int:
    """How many of the numbers are NaN or infinite. `data`: whole numbers of a dtype that `item_bytes` knows."""
    # Imported late: the import takes a fifth of the server's start, and most servers never need it.
    import numpy as np

    special = _SPECIALS[dtype]
    bits: Any = np.frombuffer(data, f"<u{special.item_bytes}")
    kind = bits.dtype.type
    return int(np.count_nonzero((bits & kind(special.mask)) == kind(special.value)))

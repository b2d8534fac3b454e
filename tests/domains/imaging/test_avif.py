"""AVIF containers: which first boxes make one, and which boxes can hold a mark."""

import struct

import numpy as np
import pytest

from domains.imaging import MEDIA_TYPES, encode
from domains.imaging.avif import is_avif, packets

pytestmark = pytest.mark.skipif("image/avif" not in MEDIA_TYPES, reason="Pillow has no AVIF here")
UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
STORE = struct.pack(">I4s", 8 + 16 + 5, b"uuid") + UUID + b"store"
FOUND = [("c2pa", UUID + b"store")]


def first_box(size: int, avif_at: int) -> bytes:
    box = struct.pack(">I4s4sI", size, b"ftyp", b"mif1", 0)
    return box + b"miaf" * ((avif_at - len(box)) // 4) + b"avif" + b"miaf" * 100


@pytest.mark.parametrize(
    ("size", "avif_at", "expected"),
    [(24, 16, True), (24, 20, True), (24, 24, False), (400, 24, True), (400, 252, True), (400, 256, False)],
)
def test_a_brand_lies_in_the_first_box_and_its_first_256_bytes(size: int, avif_at: int, expected: bool) -> None:
    assert is_avif(first_box(size, avif_at)) is expected


@pytest.fixture(scope="module")
def plain() -> bytes:
    return encode(np.zeros((8, 8, 3), np.uint8), "image/avif")


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        (STORE, FOUND),
        (struct.pack(">I4s", 8, b"free") + STORE, FOUND),  # an empty box
        (struct.pack(">I4s", 8, b"free") + STORE + STORE, FOUND * 2),
        (
            struct.pack(">I4sQ", 1, b"uuid", 16 + 16 + 5) + UUID + b"store" + STORE,
            FOUND * 2,
        ),  # 64 bits
        (struct.pack(">I4sQ", 1, b"free", 16) + STORE, FOUND),
        # 64 bits that say more than there is.
        (struct.pack(">I4sQ", 1, b"uuid", (1 << 56) + 34) + UUID + b"store", FOUND),
        (struct.pack(">I4s", 0, b"uuid") + UUID + b"to the end", [("c2pa", UUID + b"to the end")]),
        (struct.pack(">I4s", 8 + 16, b"uuid") + UUID[:-1] + b"x", []),  # of another program
        (struct.pack(">I4s", 8 + 16, b"free") + UUID, []),
        (struct.pack(">I", 4) + STORE, []),  # a length below the head's own, before what would be a box
        (struct.pack(">I4sQ", 1, b"free", 15) + STORE, []),
        (STORE[:7], []),
        (struct.pack(">I4s", 8, b"uuid"), []),
    ],
)
def test_a_c2pa_store_is_a_box_of_the_outermost_level(
    plain: bytes, boxes: bytes, found: list[tuple[str, bytes]]
) -> None:
    assert [*packets(plain + boxes)] == found

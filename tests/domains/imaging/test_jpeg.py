"""JPEG containers to the byte: which segments are read and written, and where a broken file is refused."""

import struct

import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import exif, jpeg
from domains.imaging.metadata import Metadata

PART = b"deviceops manifest\0"
MOST = 65_533
"""Bytes of a segment's content."""


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def ours(*parts: bytes) -> bytes:
    return b"".join((b"\xff\xd8", *parts, b"\xff\xda rest"))


def listed(file: bytes) -> list[tuple[int, bytes]]:
    return [(marker, bytes(data)) for marker, data in jpeg.segments(file)]


def frame(marker: int, data: bytes = struct.pack(">BHH", 8, 300, 400)) -> bytes:
    return ours(segment(0xE0, b"JFIF"), segment(marker, data))


@pytest.mark.parametrize("end", [b"\xff\xda", b"\xff\xd9"], ids=["scan", "end of image"])
def test_each_segment_before_the_scan_is_read(end: bytes) -> None:
    alone = b"".join(bytes((0xFF, marker)) for marker in (0x01, *range(0xD0, 0xD9)))
    parts = (segment(0xE0, b"ab"), b"\xff", segment(0xFE, b""), alone, segment(0xDB, b"x"))
    assert listed(b"".join((b"\xff\xd8", *parts, end))) == [(0xE0, b"ab"), (0xFE, b""), (0xDB, b"x")]


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (b"\xff\xd8", "breaks off or is damaged before the picture data, at byte 2"),
        (b"\xff\xd8\xff", "breaks off or is damaged before the picture data, at byte 2"),
        (b"\xff\xd8\xfe\xda", "breaks off or is damaged before the picture data, at byte 2"),
        (b"\xff\xd8" + segment(0xE0, b"ab"), "breaks off or is damaged before the picture data, at byte 8"),
        (b"\xff\xd8" + segment(0xE0, b"ab")[:-1], "breaks off inside the JPEG segment 0xe0 at byte 2"),
        (b"\xff\xd8\xff\xe0\0\1rest", "breaks off inside the JPEG segment 0xe0 at byte 2"),
        (b"\xff\xd8\xff\xff\xe0\0\1", "breaks off inside the JPEG segment 0xe0 at byte 3"),
    ],
)
def test_the_byte_where_a_file_breaks_off_is_told(file: bytes, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        listed(file)
    assert refused.value.reason is ErrorReason.BAD_IMAGE
    assert refused.value.violations[0].message == f"the image {told}"


@pytest.mark.parametrize("marker", [*range(0xBF, 0xD0), 0xD9])
def test_the_size_is_in_the_frame_header_of_any_coding(marker: int) -> None:
    if marker in (0xBF, 0xC4, 0xC8, 0xCC, 0xD9):  # another table, or the end
        with pytest.raises(InvalidRequest, match="has no JPEG frame header"):
            jpeg.size(frame(marker))
    else:
        assert jpeg.size(frame(marker)) == (400, 300)


def test_a_frame_header_of_four_bytes_has_no_size() -> None:
    with pytest.raises(InvalidRequest, match="has no JPEG frame header"):
        jpeg.size(frame(0xC0, bytes(4)))


def test_the_mark_is_written_behind_the_texts_at_the_begin() -> None:
    said = Metadata(manifest="m", parameters="Steps: 1", xmp=b"<x/>")
    texts = segment(0xE1, b"Exif\0\0" + exif.block("m", "Steps: 1"))
    mark = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    assert jpeg.with_metadata(b"\xff\xd8rest", said) == b"\xff\xd8" + texts + mark + b"rest"
    assert jpeg.with_metadata(b"\xff\xd8rest", Metadata(xmp=b"<x/>")) == b"\xff\xd8" + mark + b"rest"
    assert jpeg.with_metadata(b"\xff\xd8rest", Metadata()) == b"\xff\xd8rest"


def test_a_manifest_that_fills_a_segment_is_one_and_a_longer_one_has_its_own_segments() -> None:
    room = MOST - len(b"Exif\0\0" + exif.block("", None))
    file = jpeg.with_metadata(ours(), Metadata(manifest="x" * room))
    assert [(marker, len(data)) for marker, data in listed(file)] == [(0xE1, MOST)]
    assert jpeg.read_manifest(file) == "x" * room
    file = jpeg.with_metadata(ours(), Metadata(manifest="x" * (room + 1)))
    assert listed(file) == [(0xE9, PART + b"\0" + b"x" * (room + 1))]
    assert jpeg.read_manifest(file) == "x" * (room + 1)


def test_the_parts_of_a_long_manifest_are_full_but_the_last() -> None:
    text = "".join(map(chr, range(33, 127))) * 1500
    file = jpeg.with_metadata(ours(), Metadata(manifest=text, parameters="Steps: 1"))
    first, *parts = listed(file)
    assert first == (0xE1, b"Exif\0\0" + exif.block(None, "Steps: 1"))
    assert [(marker, data[:20], len(data)) for marker, data in parts] == [
        (0xE9, PART + b"\0", MOST),
        (0xE9, PART + b"\1", MOST),
        (0xE9, PART + b"\2", 20 + len(text) - 2 * (MOST - 20)),
    ]
    turned = ours(*(segment(marker, data) for marker, data in reversed(parts)))
    assert jpeg.read_manifest(turned) == text, "their numbers give the order"


def test_the_longest_parameters_fill_a_segment() -> None:
    longest = "x" * (jpeg.PARAMETERS_LIMIT_BYTES // 2)
    ((marker, data),) = listed(jpeg.with_metadata(ours(), Metadata(parameters=longest)))
    assert marker == 0xE1
    assert MOST - 2 < len(data) <= MOST
    assert jpeg.PARAMETERS_LIMIT_BYTES % 2 == 0


@pytest.mark.parametrize("part", [PART, PART[:-1] + b"\1\0m", b"other"])
def test_other_segments_are_no_parts_of_a_manifest(part: bytes) -> None:
    assert jpeg.read_manifest(ours(segment(0xE9, part))) is None
    assert jpeg.read_manifest(ours(segment(0xE9, part), segment(0xE9, PART + b"\0m"))) == "m"
    assert jpeg.read_manifest(ours(segment(0xE8, PART + b"\0m"))) is None


def test_an_empty_part_is_a_part() -> None:
    assert jpeg.read_manifest(ours(segment(0xE9, PART + b"\0"))) == ""


def test_the_first_manifest_in_exif_counts() -> None:
    one, two = (segment(0xE1, b"Exif\0\0" + exif.block(text, None)) for text in ("one", "two"))
    none = segment(0xE1, b"Exif\0\0" + exif.block(None, "Steps: 1"))
    part = segment(0xE9, PART + b"\0part")
    assert jpeg.read_manifest(ours(one, two, part)) == "one"
    assert jpeg.read_manifest(ours(none, part, two)) == "two"
    assert jpeg.read_manifest(ours(none, part)) == "part"
    assert jpeg.read_manifest(ours(segment(0xE2, one[4:]))) is None
    assert jpeg.read_manifest(ours(segment(0xE1, b"other!" + one[10:]))) is None


@pytest.mark.parametrize("parts", [[b"\0a", b"\2b"], [b"\1a"], [b"\0\xff"]], ids=["second", "first", "no text"])
def test_a_part_that_is_missing_or_damaged_is_told(parts: list[bytes]) -> None:
    with pytest.raises(InvalidRequest, match="a manifest of which parts are missing or damaged"):
        jpeg.read_manifest(ours(*(segment(0xE9, PART + part) for part in parts)))


def test_packets_are_those_of_xmp_its_extension_and_c2pa() -> None:
    more = b"http://ns.adobe.com/xmp/extension/\0part"
    mark = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    parts = [(0xE1, mark), (0xE1, more), (0xEB, b"jumb c2pa"), (0xE1, b"jumb c2pa"), (0xEB, b"jumb"), (0xE2, mark)]
    found = [*jpeg.packets(ours(*(segment(marker, data) for marker, data in parts)))]
    assert found == [("xmp", mark), ("xmp", more), ("c2pa", b"jumb c2pa")]

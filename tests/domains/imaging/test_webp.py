"""WebP containers to the byte: which chunks are read and written, and where a broken file is refused."""

import struct

import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import exif, webp
from domains.imaging.metadata import Metadata


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(data)) + data + b"\0" * (len(data) % 2)


def riff(body: bytes, size: int | None = None) -> bytes:
    return struct.pack("<4sI4s", b"RIFF", len(body) + 4 if size is None else size, b"WEBP") + body


def listed(file: bytes) -> list[tuple[bytes, bytes]]:
    return [(kind, bytes(data)) for kind, data in webp.chunks(file)]


def vp8l(width: int, height: int, alpha: bool = False) -> bytes:
    return b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14 | alpha << 28)


def vp8(width: int, height: int) -> bytes:
    return b"\1\2\3\x9d\x01\x2a" + struct.pack("<HH", width, height)


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    return struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


NO_START = b"\1\2\3\x9d\x01\x2b" + bytes(4)
A, B = chunk(b"AAAA", b"abc"), chunk(b"BBBB", b"defg")


def test_each_chunk_is_read_without_its_padding() -> None:
    assert listed(riff(A + B)) == [(b"AAAA", b"abc"), (b"BBBB", b"defg")]
    assert listed(riff(B + A)) == [(b"BBBB", b"defg"), (b"AAAA", b"abc")]
    assert listed(riff(chunk(b"AAAA", b""))) == [(b"AAAA", b"")]
    assert listed(riff(b"")) == []


@pytest.mark.parametrize("more", [0, 7])
def test_what_lies_beyond_the_declared_size_is_not_read(more: int) -> None:
    assert listed(riff(A + B, 4 + len(A) + more)) == [(b"AAAA", b"abc")]
    assert listed(riff(A + B[:more])) == [(b"AAAA", b"abc")]
    assert len(listed(riff(A + B, 4 + len(A) + 8))) == 2


@pytest.mark.parametrize(
    ("file", "told"), [(riff(B[:-1]), "b'BBBB' at byte 12"), (riff(A + B[:8]), "b'BBBB' at byte 24")]
)
def test_the_byte_where_a_file_breaks_off_is_told(file: bytes, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        listed(file)
    assert refused.value.reason is ErrorReason.BAD_IMAGE
    assert refused.value.violations[0].message == f"the image breaks off inside the WebP chunk {told}"


@pytest.mark.parametrize(
    ("kind", "data", "size"),
    [
        (b"VP8X", vp8x(0x012346, 0x020305), (0x012346, 0x020305)),
        (b"VP8L", vp8l(0x1235, 0x2346), (0x1235, 0x2346)),
        (b"VP8L", vp8l(16_384, 1, alpha=True), (16_384, 1)),
        (b"VP8L", vp8l(1, 16_384), (1, 16_384)),
        (b"VP8 ", vp8(0x1234, 0x2345), (0x1234, 0x2345)),
        (b"VP8 ", vp8(0x4000 | 16_383, 0xC000 | 16_382), (16_383, 16_382)),  # the upper two bits: how to scale it
    ],
)
def test_the_size_is_in_the_first_chunk(kind: bytes, data: bytes, size: tuple[int, int]) -> None:
    assert webp.size(riff(chunk(kind, data) + chunk(b"VP8X", vp8x(9, 9)))) == size
    assert webp.size(riff(chunk(kind, data + b"more"))) == size
    other = chunk(b"VP8L" if kind == b"VP8 " else b"VP8 ", data)
    for broken in (chunk(kind, data[:-1]), other, chunk(b"ICCP", data) + chunk(kind, data), b""):
        with pytest.raises(InvalidRequest, match="has no WebP picture header"):
            webp.size(riff(broken))


@pytest.mark.parametrize(
    ("kind", "data"), [(b"VP8L", b"\x2e" + vp8l(4, 4)[1:]), (b"VP8 ", b"\1\2\3\x9d\x01\x2b" + bytes(4))]
)
def test_a_picture_without_its_signature_has_no_size(kind: bytes, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="has no WebP picture header"):
        webp.size(riff(chunk(kind, data)))


EXIF, XMP = chunk(b"EXIF", exif.block("m", None)), chunk(b"XMP ", b"<x/>!")
TEXTS = Metadata(manifest="m")
BOTH = Metadata(manifest="m", xmp=b"<x/>!")


@pytest.mark.parametrize(
    ("body", "metadata", "flags", "added"),
    [
        (chunk(b"VP8L", vp8l(300, 200)), Metadata(xmp=b"<x/>!"), 0x04, XMP),
        (chunk(b"VP8L", vp8l(300, 200)), TEXTS, 0x08, EXIF),
        (chunk(b"VP8L", vp8l(300, 200)), BOTH, 0x0C, EXIF + XMP),
        (chunk(b"VP8L", vp8l(300, 200, alpha=True)), BOTH, 0x1C, EXIF + XMP),
        (chunk(b"VP8 ", vp8(300, 200) + b"\xff" * 4), BOTH, 0x0C, EXIF + XMP),
        (chunk(b"VP8 ", vp8(300, 200)), Metadata(), 0x00, b""),
        (
            chunk(b"VP8 ", vp8(300, 200)),
            Metadata(parameters="Steps: 1"),
            8,
            chunk(b"EXIF", exif.block(None, "Steps: 1")),
        ),
    ],
)
def test_a_file_gets_the_extended_header_with_a_flag_for_each_part(
    body: bytes, metadata: Metadata, flags: int, added: bytes
) -> None:
    expected = riff(chunk(b"VP8X", vp8x(300, 200, flags)) + body + added)
    assert webp.with_metadata(riff(body), metadata) == expected


def test_the_flags_of_an_extended_header_stay() -> None:
    parts = chunk(b"ALPH", b"abc") + chunk(b"VP8 ", vp8(30, 20))
    written = webp.with_metadata(riff(chunk(b"VP8X", vp8x(300, 200, 0x10)) + parts), BOTH)
    assert written == riff(chunk(b"VP8X", vp8x(300, 200, 0x1C)) + parts + EXIF + XMP)


@pytest.mark.parametrize(
    ("file", "expected"),
    [(riff(b""), True), (b"RIFX" + riff(b"")[4:], False), (b"RIFF\4\0\0\0WAVE", False), (b"", False)],
)
def test_a_webp_begins_with_its_two_names(file: bytes, expected: bool) -> None:
    assert webp.is_webp(file) is expected


def test_a_manifest_is_read_from_the_exif_chunk_with_or_without_jpegs_header() -> None:
    block = exif.block("m", None)
    assert webp.read_manifest(riff(A + chunk(b"EXIF", block))) == "m"
    assert webp.read_manifest(riff(A + chunk(b"EXIF", b"Exif\0\0" + block))) == "m"
    assert webp.read_manifest(riff(A + chunk(b"EXIX", block))) is None


def test_packets_are_those_of_xmp_and_c2pa() -> None:
    assert [*webp.packets(riff(A + XMP + chunk(b"C2PA", b"store")))] == [("xmp", b"<x/>!"), ("c2pa", b"store")]

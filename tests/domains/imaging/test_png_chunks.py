"""PNG containers to the byte: which chunks are read and written, and where a broken file is refused."""

import struct
import zlib

import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import png_chunks
from domains.imaging.metadata import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def itxt(keyword: bytes, text: bytes, flags: bytes = b"\0\0", languages: bytes = b"\0\0") -> bytes:
    return chunk(b"iTXt", keyword + b"\0" + flags + languages + text)


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 200, 8, 2, 0, 0, 0))
END = chunk(b"IEND", b"")


def test_each_chunk_is_read() -> None:
    found = [(kind, bytes(data)) for kind, data in png_chunks.chunks(SIGNATURE + HEADER + chunk(b"tIME", b"abc") + END)]
    assert found == [(b"IHDR", HEADER[8:-4]), (b"tIME", b"abc"), (b"IEND", b"")]


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (SIGNATURE + END[:-1], "breaks off inside a PNG chunk's header at byte 8"),
        (SIGNATURE + HEADER + b"\0", "breaks off inside a PNG chunk's header at byte 33"),
        (SIGNATURE + HEADER[:-1], "breaks off inside the PNG chunk b'IHDR' at byte 8"),
        (SIGNATURE + HEADER + chunk(b"tIME", b"abc")[:-3], "breaks off inside the PNG chunk b'tIME' at byte 33"),
    ],
)
def test_the_byte_where_a_file_breaks_off_is_told(file: bytes, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        list(png_chunks.chunks(file))
    assert refused.value.reason is ErrorReason.BAD_IMAGE
    assert refused.value.violations[0].message == f"the image {told}"


def test_the_size_is_in_the_whole_header() -> None:
    assert png_chunks.size(SIGNATURE + HEADER) == (300, 200)
    for broken in (SIGNATURE + HEADER[:-1], SIGNATURE + HEADER.replace(b"IHDR", b"iHDR")):
        with pytest.raises(InvalidRequest, match="has no PNG header"):
            png_chunks.size(broken)


@pytest.mark.parametrize(
    ("metadata", "written"),
    [
        (Metadata(manifest="лиса"), itxt(b"deviceops", "лиса".encode())),
        (Metadata(parameters="café"), chunk(b"tEXt", b"parameters\0caf\xe9")),
        (Metadata(parameters="сова"), itxt(b"parameters", "сова".encode())),
        (Metadata(xmp=b"<x/>"), itxt(b"XML:com.adobe.xmp", b"<x/>")),
        (
            Metadata(manifest="m", parameters="p", xmp=b"x"),
            itxt(b"deviceops", b"m") + chunk(b"tEXt", b"parameters\0p") + itxt(b"XML:com.adobe.xmp", b"x"),
        ),
        (Metadata(), b""),
    ],
)
def test_each_text_is_a_chunk(metadata: Metadata, written: bytes) -> None:
    assert b"".join(png_chunks.texts(metadata)) == written


@pytest.mark.parametrize(
    ("chunks", "manifest"),
    [
        (itxt(b"deviceops", b"m"), "m"),
        (itxt(b"deviceops", b"m", languages=b"en\0manifest\0"), "m"),
        (itxt(b"deviceops", b"a\0b"), "a\0b"),
        (itxt(b"deviceops", b"m", flags=b"\0\1"), "m"),
        (itxt(b"deviceops", zlib.compress(b"m"), flags=b"\1\0"), "m"),
        (itxt(b"deviceops", b"one") + itxt(b"deviceops", b"two"), "one"),
        (itxt(b"deviceops2", b"m"), None),
        (chunk(b"tEXt", b"deviceops\0\0\0\0\0m"), None),
    ],
)
def test_the_manifest_is_the_text_of_the_first_chunk_with_our_keyword(chunks: bytes, manifest: str | None) -> None:
    assert png_chunks.read_manifest(SIGNATURE + HEADER + chunks + END) == manifest


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0no end", b"\0\0\0no end", b"\1\0\0\0not packed"])
def test_a_damaged_text_chunk_is_told(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="has a damaged text chunk 'deviceops'") as refused:
        png_chunks.read_manifest(SIGNATURE + HEADER + chunk(b"iTXt", b"deviceops\0" + data))
    assert refused.value.reason is ErrorReason.BAD_IMAGE


@pytest.mark.parametrize("more", [0, 1])
def test_a_packed_text_has_a_largest_size(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(png_chunks, "TEXT_LIMIT_BYTES", 1000)
    file = SIGNATURE + itxt(b"deviceops", zlib.compress(b"x" * (1000 + more)), flags=b"\1\0")
    if more:
        with pytest.raises(InvalidRequest, match="a text 'deviceops' that breaks off or is larger than 1000 bytes"):
            png_chunks.read_manifest(file)
    else:
        assert png_chunks.read_manifest(file) == "x" * 1000


def test_packets_are_those_of_xmp_and_c2pa() -> None:
    file = (
        SIGNATURE + HEADER + itxt(b"deviceops", b"m") + chunk(b"caBX", b"store") + itxt(b"XML:com.adobe.xmp", b"<x/>")
    )
    assert [*png_chunks.packets(file)] == [("c2pa", b"store"), ("xmp", b"<x/>")]

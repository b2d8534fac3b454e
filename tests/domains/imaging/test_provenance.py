"""The mark of a picture made by AI: exiv2 and Pillow find it, and we find the marks of others."""

import io
import struct
import zlib

import numpy as np
import pyexiv2
import pytest
from PIL import Image, PngImagePlugin

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import MEDIA_TYPES, Carrier, DigitalSource, Mark, decode, encode, read_manifest, read_marks

PIXELS = np.random.default_rng(5).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SOURCE = DigitalSource.TRAINED_ALGORITHMIC_MEDIA
URI = "http://cv.iptc.org/newscodes/digitalsourcetype/"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    b' xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" e:DigitalSourceType="'
    + URI.encode()
    + b'digitalCapture"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
CAPTURED = Mark(carrier=Carrier.XMP, source_type="digitalCapture")
ENDINGS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/avif": "AVIF"}


def seen_by_exiv2(file: bytes) -> dict[str, object]:
    with pyexiv2.ImageData(file) as image:
        return image.read_xmp()


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("source", DigitalSource)
@pytest.mark.parametrize("manifest", [None, "m", "лиса" * 40_000], ids=["alone", "with a manifest", "with a long one"])
def test_exiv2_finds_the_mark(media_type: str, source: DigitalSource, manifest: str | None) -> None:
    file = encode(PIXELS, media_type, manifest=manifest, source=source)
    told = seen_by_exiv2(file)
    assert told["Xmp.iptcExt.DigitalSourceType"] == URI + source
    assert told["Xmp.xmp.CreatorTool"] == "DeviceOps"
    assert read_marks(file) == (Mark(carrier=Carrier.XMP, source_type=source),)
    assert read_manifest(file) == manifest


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_file_that_was_not_marked_has_no_mark(media_type: str) -> None:
    file = encode(PIXELS, media_type, manifest="m")
    assert seen_by_exiv2(file) == {}
    assert read_marks(file) == ()


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_the_mark_changes_no_pixel_and_is_written_the_same_each_time(media_type: str) -> None:
    marked, again = (encode(PIXELS, media_type, source=SOURCE) for _ in range(2))
    assert marked == again
    plain = encode(PIXELS, media_type)
    np.testing.assert_array_equal(decode(marked, max_pixels=10_000), decode(plain, max_pixels=10_000))


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_mark_survives_pillow_which_rewrites_the_file(media_type: str) -> None:
    with Image.open(io.BytesIO(encode(PIXELS, media_type, source=SOURCE))) as image:
        assert read_marks(saved(image.copy(), media_type, packet(image))) == (
            Mark(carrier=Carrier.XMP, source_type=SOURCE),
        )


def packet(image: Image.Image) -> bytes:
    said = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
    assert isinstance(said, bytes)
    return said


def saved(image: Image.Image, media_type: str, xmp: bytes, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    if media_type != "image/png":
        image.save(file, ENDINGS[media_type], xmp=xmp)
        return file.getvalue()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=compressed)
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_the_mark_of_another_program_is_read(media_type: str) -> None:
    assert read_marks(saved(Image.fromarray(PIXELS), media_type, XMP)) == (CAPTURED,)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_packet_that_names_no_source_type_is_no_mark(media_type: str) -> None:
    assert read_marks(saved(Image.fromarray(PIXELS), media_type, XMP.replace(b"digitalsourcetype/", b"other/"))) == ()


def test_a_compressed_packet_is_read() -> None:
    assert read_marks(saved(Image.fromarray(PIXELS), "image/png", XMP, compressed=True)) == (CAPTURED,)


def test_a_packet_that_is_no_sound_xml_still_tells_its_mark() -> None:
    assert read_marks(saved(Image.fromarray(PIXELS), "image/jpeg", b"<!DOCTYPE x []>" + XMP[:-9])) == (CAPTURED,)


def test_a_packet_in_utf_16_is_read() -> None:
    file = saved(Image.fromarray(PIXELS), "image/webp", XMP.decode().encode("utf-16"))
    assert read_marks(file) == (CAPTURED,)


def test_each_mark_is_told_once_in_its_order() -> None:
    twice = XMP + XMP.replace(b"digitalCapture", b"algorithmicMedia") + XMP
    marks = read_marks(saved(Image.fromarray(PIXELS), "image/jpeg", twice))
    assert [mark.source_type for mark in marks] == ["digitalCapture", "algorithmicMedia"]


UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def riff(body: bytes) -> bytes:
    return struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WEBP") + body


def with_c2pa(file: bytes, media_type: str, store: bytes) -> bytes:
    match media_type:
        case "image/png":
            return file[:33] + png_chunk(b"caBX", store) + file[33:]
        case "image/jpeg":
            return file[:2] + struct.pack(">BBH", 0xFF, 0xEB, len(store) + 2) + store + file[2:]
        case "image/webp":
            return riff(file[12:] + struct.pack("<4sI", b"C2PA", len(store)) + store)
        case _:
            return file + struct.pack(">I4s", len(store) + 24, b"uuid") + UUID + store


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("term", ["trainedAlgorithmicMedia", ""])
def test_a_c2pa_store_is_told_with_its_source_type_if_it_names_one(media_type: str, term: str) -> None:
    store = b"jumb c2pa" + (URI.encode() + term.encode() + b"\xff" if term else b"\xff\xff\xff")
    file = with_c2pa(encode(PIXELS, media_type), media_type, store)
    assert read_marks(file) == (Mark(carrier=Carrier.C2PA, source_type=term),)


@pytest.mark.parametrize(
    ("marker", "content"), [(0xEB, b"jumb other"), (0xFE, b"jumb c2pa"), (0xE1, b"no xmp"), (0xE2, XMP)]
)
def test_other_segments_of_a_jpeg_carry_no_mark(marker: int, content: bytes) -> None:
    file = encode(PIXELS, "image/jpeg")
    other = struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    assert read_marks(file[:2] + other + file[2:]) == ()


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_the_marks_of_a_broken_file_are_refused_as_a_bad_image(media_type: str) -> None:
    file = encode(PIXELS, media_type, source=SOURCE)
    with pytest.raises(InvalidRequest) as refused:
        read_marks(file[: len(file) // 4])
    assert refused.value.reason is ErrorReason.BAD_IMAGE

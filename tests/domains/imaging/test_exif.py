"""The EXIF block of our texts, to the byte, and what is read from the blocks of others."""

import struct

import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.imaging import exif

COMMENT, XP_COMMENT, EXIF = 0x9286, 0x9C9C, 0x8769


def tiff(order: str, comment: bytes | None = None, beside: bytes | None = None) -> bytes:
    """A block in an order of bytes: ">" or "<"."""
    count = (comment is not None) + (beside is not None)
    second = 8 + 2 + 12 * count + 4
    content = second + (2 + 12 + 4 if comment is not None else 0)
    first, data = b"", b""
    if comment is not None:
        first += struct.pack(f"{order}HHII", EXIF, 4, 1, second)
        data = struct.pack(f"{order}HHHIII", 1, COMMENT, 7, len(comment), content, 0) + comment
    if beside is not None:
        first += struct.pack(f"{order}HHII", XP_COMMENT, 1, len(beside), content + len(comment or b""))
        data += beside
    head = {">": b"MM\0*", "<": b"II*\0"}[order]
    return head + struct.pack(f"{order}IH", 8, count) + first + bytes(4) + data


@pytest.mark.parametrize(
    ("manifest", "parameters", "comment", "beside"),
    [
        ("a fox", None, b"ASCII\0\0\0deviceops:a fox", None),
        ("лиса", None, b"UNICODE\0" + "deviceops:лиса".encode("utf-16-be"), None),
        (None, "Steps: 1", b"UNICODE\0" + "Steps: 1".encode("utf-16-be"), None),
        ("a fox", "сова", b"UNICODE\0" + "сова".encode("utf-16-be"), "deviceops:a fox\0".encode("utf-16-le")),
    ],
)
def test_a_block_holds_the_texts_and_nothing_else(
    manifest: str | None, parameters: str | None, comment: bytes, beside: bytes | None
) -> None:
    assert exif.block(manifest, parameters) == tiff(">", comment, beside)
    assert exif.read(exif.block(manifest, parameters)) == manifest


@pytest.mark.parametrize("order", [">", "<"])
def test_a_manifest_is_read_in_either_order_of_bytes(order: str) -> None:
    name = {">": "utf-16-be", "<": "utf-16-le"}[order]
    assert exif.read(tiff(order, b"UNICODE\0" + "deviceops:лиса".encode(name))) == "лиса"
    assert exif.read(tiff(order, b"ASCII\0\0\0deviceops:fox")) == "fox"


@pytest.mark.parametrize("order", [">", "<"])
def test_the_comment_of_windows_counts_where_the_other_is_no_manifest(order: str) -> None:
    beside = "deviceops:two\0".encode("utf-16-le")
    assert exif.read(tiff(order, b"ASCII\0\0\0a comment", beside)) == "two"
    assert exif.read(tiff(order, b"ASCII\0\0\0deviceops:one", beside)) == "one"
    assert exif.read(tiff(order, None, beside)) == "two"
    assert exif.read(tiff(order, b"ASCII\0\0\0deviceops", "a comment".encode("utf-16-le"))) is None
    assert exif.read(tiff(order)) is None


def test_what_is_no_text_is_replaced() -> None:
    assert exif.read(tiff(">", b"ASCII\0\0\0deviceops:\xff")) == "\ufffd"
    assert exif.read(tiff(">", b"UNICODE\0" + "deviceops:".encode("utf-16-be") + b"\xd8\0")) == "\ufffd"
    assert exif.read(tiff(">", None, "deviceops:".encode("utf-16-le") + b"\0\xd8")) == "\ufffd"


def test_a_block_of_another_kind_is_damaged() -> None:
    with pytest.raises(InvalidRequest, match="has a damaged EXIF block") as refused:
        exif.read(b"XX\0*" + bytes(8))
    assert refused.value.reason is ErrorReason.BAD_IMAGE

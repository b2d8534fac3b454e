"""The mark of a picture made by AI: the IPTC digital source type, written as XMP and read from XMP and C2PA.

The property is `Iptc4xmpExt:DigitalSourceType` (IPTC Photo Metadata Standard); its values are the URIs of
http://cv.iptc.org/newscodes/digitalsourcetype/. The packet holds no time and no host: the same request gives the same file.
"""

import re
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from domains.imaging.media_types import MEDIA_TYPES, media_type_of

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_CREATOR_TOOL = "DeviceOps"
_TERM = re.compile(rb"digitalsourcetype/([A-Za-z]{1,64})")
"""A term of the vocabulary wherever a packet or a C2PA store names it: as attribute, element, resource or CBOR text, also in
a packet that is not well-formed XML. C2PA has terms of its own under another host."""
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<xmp:CreatorTool>{_CREATOR_TOOL}</xmp:CreatorTool>"
    f"<Iptc4xmpExt:DigitalSourceType>{_VOCABULARY}%s</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


class DigitalSource(StrEnum):
    """Origin of a picture of ours, as a term of the IPTC vocabulary."""

    TRAINED_ALGORITHMIC_MEDIA = "trainedAlgorithmicMedia"
    """Made by a model from text alone."""
    COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA = "compositeWithTrainedAlgorithmicMedia"
    """Made by a model with an input picture."""


class Carrier(StrEnum):
    """Part of a file that contains a mark."""

    XMP = "xmp"
    C2PA = "c2pa"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A file's statement about its origin."""

    carrier: Carrier
    source_type: str
    """A term of the vocabulary: `trainedAlgorithmicMedia`, `digitalCapture` …; empty: a C2PA store that names none."""


def packet(source: DigitalSource) -> bytes:
    """The XMP packet that marks a picture."""
    return (_PACKET % source).encode()


def read_marks(data: bytes) -> tuple[Mark, ...]:
    """Each mark of a file once, in the file's order; raises BAD_IMAGE for a broken file.

    C2PA signatures are not verified. A C2PA term that is split between two JPEG segments is not found.
    """
    known = MEDIA_TYPES[media_type_of(data)]
    return tuple(dict.fromkeys(_marks(known.packets(data))))


def _marks(packets: Iterator[tuple[str, bytes]]) -> Iterator[Mark]:
    for kind, content in packets:
        carrier = Carrier(kind)
        terms = _TERM.findall(content.replace(b"\0", b"") if carrier is Carrier.XMP else content)  # XMP may be UTF-16
        if not terms and carrier is Carrier.C2PA:
            yield Mark(carrier=carrier, source_type="")
        for term in terms:
            yield Mark(carrier=carrier, source_type=term.decode())

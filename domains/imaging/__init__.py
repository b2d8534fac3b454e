"""Image files: encode, decode, probe, the texts and marks inside them. A leaf: numpy, OpenCV, ISA-L, Pillow, no torch.

Writing and reading: `encode`, `decode`, `header` (size without decoding), `fit` and `resample`, `media_types` (the table of
formats), `bad_image`, `masks` (the part made anew, its edge, pasting it back), `control_maps`. Untrusted files:
`decoder_process` with `decoder_child` and `decoder_frames`.

Texts inside a file: `manifest`, `texts` (those of other programs too), `metadata`, `exif`, `provenance` (the mark of a
picture made by AI). One module a container: `png` with `png_chunks`, `jpeg`, `webp`, `avif`. For people: `contact_sheet`,
`terminal`.

Pixels are uint8 arrays: (height, width) is grey, (height, width, 3) RGB, (height, width, 4) RGBA with straight alpha.
"""

from domains.imaging.decode import decode
from domains.imaging.encode import encode
from domains.imaging.fit import Fit, fitted, square, squeezed
from domains.imaging.header import ImageHeader, probe
from domains.imaging.manifest import read_manifest
from domains.imaging.masks import luma
from domains.imaging.media_types import MEDIA_TYPES, MediaType, media_type_of
from domains.imaging.provenance import Carrier, DigitalSource, Mark, read_marks

__all__ = [
    "MEDIA_TYPES",
    "Carrier",
    "DigitalSource",
    "Fit",
    "ImageHeader",
    "Mark",
    "MediaType",
    "decode",
    "encode",
    "fitted",
    "luma",
    "media_type_of",
    "probe",
    "read_manifest",
    "read_marks",
    "square",
    "squeezed",
]

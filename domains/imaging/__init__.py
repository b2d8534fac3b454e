"""Image files: encode, decode, probe, and the manifest inside them. A leaf: numpy, OpenCV, ISA-L and Pillow, no torch.

Pixels are uint8 arrays: (height, width) is grey, (height, width, 3) RGB, (height, width, 4) RGBA with straight alpha.
"""

from domains.imaging.decode import decode
from domains.imaging.encode import encode
from domains.imaging.header import ImageHeader, probe
from domains.imaging.manifest import read_manifest
from domains.imaging.media_types import MEDIA_TYPES, MediaType

__all__ = ["MEDIA_TYPES", "ImageHeader", "MediaType", "decode", "encode", "probe", "read_manifest"]

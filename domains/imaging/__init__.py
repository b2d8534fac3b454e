"""Image files: encode, decode, embed and read manifests. A leaf: numpy only, no torch, no other domain."""

from domains.imaging.encode import MEDIA_TYPES, decode, encode, read_manifest

__all__ = ["MEDIA_TYPES", "decode", "encode", "read_manifest"]

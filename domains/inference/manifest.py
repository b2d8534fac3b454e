"""The manifest inside a picture's file: what made it, complete enough to make it again.

It holds nothing that differs between two runs of the same request (no time, no host), so the files are equal byte by byte.
"""

import importlib.metadata
from collections.abc import Mapping
from functools import cache

import msgspec

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.generation import ResolvedGeneration

_LIBRARIES = ("torch", "diffusers", "transformers", "numpy")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture's file says about itself. Fields are written in this order."""

    schema: int = 1
    """Raised when a field changes its meaning; new fields do not raise it."""
    deviceops: str
    """Version of this software; empty if it is not installed as a distribution."""
    libraries: Mapping[str, str]
    """Versions of what computed the picture, by distribution name."""
    model_id: str
    model_sha256: str
    seed: int
    """This picture's own."""
    image_index: int
    """Its place in the request."""
    request: ResolvedGeneration
    """All choices made. A replay of this picture alone sets `seeds` to (`seed`,)."""


def manifest_of(request: ResolvedGeneration, index: int) -> Manifest:
    """The manifest of picture `index` (0-based) of a request."""
    return Manifest(
        deviceops=_version("deviceops"),
        libraries={name: _version(name) for name in _LIBRARIES},
        model_id=request.model_id,
        model_sha256=request.model_sha256,
        seed=request.seeds[index],
        image_index=index,
        request=request,
    )


def to_json(manifest: Manifest) -> str:
    """Compact JSON with a fixed order of keys."""
    return msgspec.json.encode(manifest, order="deterministic").decode()


def parse(text: str | bytes) -> Manifest:
    """Read a manifest. Raises InvalidRequest (BAD_IMAGE) naming what is wrong with it."""
    try:
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        violation = Violation(field="manifest", message=f"is not a manifest of this software: {error}")
        raise InvalidRequest([violation], ErrorReason.BAD_IMAGE) from error


@cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""

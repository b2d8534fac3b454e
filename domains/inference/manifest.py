"""The manifest inside a picture's file: everything that is needed to make the picture again.

It holds nothing that differs between two runs of the same request (no time, no host), so the files are equal byte by byte.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.generation import ManifestDetail, ResolvedGeneration

_LIBRARIES = ("torch", "diffusers", "transformers", "numpy")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest. Fields are written in this order."""

    schema: int = 1
    """Raised when a field changes its meaning; new fields do not raise it."""
    detail: ManifestDetail = ManifestDetail.FULL
    """RECIPE: each prompt in `request` is the SHA-256 of its text in UTF-8, as 64 hex digits."""
    deviceops: str
    """Version of this software; empty if it is not installed as a distribution."""
    libraries: Mapping[str, str]
    """Versions of what computed the picture, by distribution name."""
    model_id: str
    model_sha256: str
    seed: int
    """The seed of this picture."""
    image_index: int
    """Index of the picture in the request."""
    request: ResolvedGeneration
    """All choices made. A replay of this picture alone sets `seeds` to (`seed`,). `output.provenance` is always true here,
    so that the manifest does not depend on the mark."""


def manifest_of(request: ResolvedGeneration, index: int) -> Manifest:
    """The manifest of picture `index` (0-based) of a request, in the detail that its output asks for: FULL or RECIPE."""
    detail = request.output.manifest
    said = msgspec.structs.replace(request, output=msgspec.structs.replace(request.output, provenance=True))
    return Manifest(
        detail=detail,
        deviceops=_version("deviceops"),
        libraries={name: _version(name) for name in _LIBRARIES},
        model_id=request.model_id,
        model_sha256=request.model_sha256,
        seed=request.seeds[index],
        image_index=index,
        request=_without_prompts(said) if detail is ManifestDetail.RECIPE else said,
    )


def _without_prompts(request: ResolvedGeneration) -> ResolvedGeneration:
    return msgspec.convert(_hashed(msgspec.to_builtins(request)), ResolvedGeneration)


def _hashed(value: Any, name: str = "") -> Any:
    """Builtins with each text field that ends in `prompt` hashed, at any depth: new prompt fields are covered too."""
    match value:
        case dict():
            return {key: _hashed(one, str(key)) for key, one in value.items()}
        case list() | tuple():
            return [_hashed(one, name) for one in value]
        case str() if name.endswith("prompt") and name != "long_prompt":
            return hashlib.sha256(value.encode()).hexdigest()
        case _:
            return value


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

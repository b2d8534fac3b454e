"""The recipe of our own manifest."""

from typing import Any

import msgspec

from domains.inference.generation import Generation, ManifestDetail, ResolvedGeneration, Sampling
from domains.inference.manifest import Manifest, parse
from domains.inference.recipes.recipe import NamedModel, Recipe, unusable


def of_manifest(text: str) -> Recipe:
    """Read a manifest. Raises BAD_IMAGE."""
    manifest = parse(text)
    if manifest.detail is not ManifestDetail.FULL:
        raise unusable("has a manifest without its prompts; only a FULL one says enough")
    return Recipe(
        source="deviceops",
        generation=asked_of(manifest.request, manifest.seed),
        model=NamedModel(id=manifest.model_id, sha256=manifest.model_sha256),
        original=msgspec.structs.replace(manifest.request, seeds=(manifest.seed,)),
        versions=versions_of(manifest),
    )


def versions_of(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """What computed a picture."""
    told = [("library", f"{name} {version}") for name, version in sorted(manifest.libraries.items())]
    return (*told, ("server_version", manifest.deviceops))


def asked_of(resolved: ResolvedGeneration, seed: int) -> Generation:
    """The request for one picture of a generation. Fields of both have the same names."""
    told: dict[str, Any] = msgspec.to_builtins(resolved)
    sampling = {name: told[name] for name in Sampling.__struct_fields__ if name in told}
    fields = {name: told[name] for name in Generation.__struct_fields__ if name in told}
    fields |= {"sampling": sampling | {"seeds": [seed]}, "image_count": None, "model_id": "", "previews": {}}
    return msgspec.convert(fields, Generation)

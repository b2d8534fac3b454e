"""The recipe of our own manifest."""

from msgspec.structs import replace

from domains.inference.generation import ManifestDetail, Previews
from domains.inference.manifest import Manifest, parse
from domains.inference.recipes.recipe import NamedModel, Recipe, unusable


def of_manifest(text: str) -> Recipe:
    """Read a manifest. Raises BAD_IMAGE."""
    manifest = parse(text)
    if manifest.detail is not ManifestDetail.FULL:
        raise unusable("has a manifest without its prompts; only a FULL one says enough")
    variation = manifest.request.seed_variation
    if variation is not None:
        variation = replace(variation, seeds=variation.seeds[manifest.image_index : manifest.image_index + 1])
    return Recipe(
        source="deviceops",
        model=NamedModel(id=manifest.model_id, sha256=manifest.model_sha256),
        original=replace(manifest.request, seeds=(manifest.seed,), seed_variation=variation, previews=Previews()),
        image_count=len(manifest.request.seeds),
        versions=versions_of(manifest),
    )


def versions_of(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Libraries and server version that made the picture, as (`library` or `server_version`, text)."""
    told = [("library", f"{name} {version}") for name, version in sorted(manifest.libraries.items())]
    return (*told, ("server_version", manifest.deviceops))

"""Recipes in picture files: how a picture was made, as far as its file says.

`recipe` is the value, `own` reads our manifest, `a1111`, `comfyui` and `invokeai` what those programs write, with `names`
for their samplers; `comparison` compares two pictures.
"""

from collections.abc import Callable, Mapping

from domains.inference.recipes.a1111 import of_parameters
from domains.inference.recipes.comfyui import of_graph
from domains.inference.recipes.comparison import Comparison, Verdict, compared
from domains.inference.recipes.invokeai import of_metadata
from domains.inference.recipes.own import of_manifest, versions_of
from domains.inference.recipes.recipe import FIELD, Cause, NamedLora, NamedModel, Recipe, stem, unusable

_READERS: Mapping[str, Callable[[str], Recipe]] = {
    "deviceops": of_manifest,
    "invokeai_metadata": of_metadata,
    "prompt": of_graph,
    "parameters": of_parameters,
}
"""By the name of the text, the one that says most first. `domains.imaging.texts` has the names."""


def recipe_of(texts: Mapping[str, str]) -> Recipe:
    """The recipe that the texts of a file have. Raises BAD_IMAGE."""
    for name, read in _READERS.items():
        if name in texts:
            return read(texts[name])
    raise unusable("says nothing about how it was made; send the file as the server made it")


__all__ = [
    "FIELD",
    "Cause",
    "Comparison",
    "NamedLora",
    "NamedModel",
    "Recipe",
    "Verdict",
    "compared",
    "recipe_of",
    "stem",
    "unusable",
    "versions_of",
]

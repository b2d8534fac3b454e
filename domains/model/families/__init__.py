"""What is known about each family of models: one file of facts a family, and one table.

Values: `family` (all facts), `sign` (what proves a network by its tensors). Shared facts: `parts`, `unet`. `proof` compares
tensors with all families. To add a family: a file here and its line below; `computed` once the engine has its line too.
"""

from collections.abc import Mapping

from domains.model.families.auraflow import AURAFLOW
from domains.model.families.chroma import CHROMA
from domains.model.families.cogview4 import COGVIEW4
from domains.model.families.family import Family, Part, Variant
from domains.model.families.flux1 import FLUX1
from domains.model.families.flux2 import FLUX2
from domains.model.families.kolors import KOLORS
from domains.model.families.lumina2 import LUMINA2
from domains.model.families.pixart import PIXART
from domains.model.families.qwen_image import QWEN_IMAGE
from domains.model.families.sana import SANA
from domains.model.families.sd1 import SD1
from domains.model.families.sd2 import SD2
from domains.model.families.sd3 import SD3
from domains.model.families.sdxl import SDXL
from domains.model.families.sdxl_refiner import SDXL_REFINER
from domains.model.families.z_image import Z_IMAGE
from domains.model.kind import ModelKind

__all__ = ["COMPUTED", "CONTROLLED", "FAMILIES", "REFINERS", "Family", "Part", "Variant"]

FAMILIES: Mapping[str, Family] = {
    family.id: family
    for family in (
        *(SD1, SD2, SDXL, SDXL_REFINER, KOLORS, SD3, FLUX1, CHROMA, FLUX2),
        *(QWEN_IMAGE, Z_IMAGE, LUMINA2, SANA, PIXART, AURAFLOW, COGVIEW4),
    )
}
"""By id."""

CONTROLLED = ("sd1", "sd2", "sdxl", "sd3", "flux1", "z_image")
"""Families whose ControlNets the engine computes."""

COMPUTED = tuple(name for name, family in FAMILIES.items() if family.computed and family.kind is ModelKind.CHECKPOINT)
"""Ids of the families whose models make pictures here."""

REFINERS = tuple(name for name, family in FAMILIES.items() if family.computed and family.kind is ModelKind.REFINER)
"""Ids of the families that the engine computes and whose models continue from another model's latents."""

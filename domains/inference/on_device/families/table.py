"""The families that this engine computes, in one list."""

from collections.abc import Callable, Mapping

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.families.auraflow import AuraFlow
from domains.inference.on_device.families.chroma import Chroma
from domains.inference.on_device.families.family import Family
from domains.inference.on_device.families.flux1 import Flux1
from domains.inference.on_device.families.sd1 import Sd1
from domains.inference.on_device.families.sd3 import Sd3
from domains.inference.on_device.families.sdxl import Sdxl
from domains.inference.on_device.families.sdxl_refiner import SdxlRefiner
from domains.inference.on_device.families.z_image import ZImage
from domains.model.on_device import OnDeviceModel

FAMILIES: Mapping[str, Callable[[OnDeviceModel], Family]] = {
    "sd1": Sd1,
    "sd2": Sd1,
    "sdxl": Sdxl,
    "sdxl_refiner": SdxlRefiner,
    "sd3": Sd3,
    "flux1": Flux1,
    "chroma": Chroma,
    "auraflow": AuraFlow,
    "z_image": ZImage,
}


def family_of(loaded: OnDeviceModel) -> Family:
    """The family's view of a loaded model. Raises MODEL_INCOMPATIBLE."""
    if loaded.family in FAMILIES:
        return FAMILIES[loaded.family](loaded)
    message = f"model {loaded.model.id} is of the family {loaded.family!r}; this engine computes: {', '.join(FAMILIES)}"
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=loaded.model.id, family=loaded.family)

"""The models that work needs, each with its role."""

from enum import StrEnum

import msgspec


class AssetRole(StrEnum):
    """What a model is for in a job."""

    BASE = "base"
    VAE = "vae"
    LORA = "lora"
    TEXTUAL_INVERSION = "textual_inversion"
    CONTROLNET = "controlnet"
    IP_ADAPTER = "ip_adapter"
    REFINER = "refiner"
    UPSCALER = "upscaler"


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a job needs on its device."""

    role: AssetRole
    model_id: str

    @property
    def loaded(self) -> bool:
        """Whether the device loads it for all jobs, and not for one alone."""
        return self.role not in (AssetRole.LORA, AssetRole.TEXTUAL_INVERSION, AssetRole.CONTROLNET)

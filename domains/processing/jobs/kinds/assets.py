"""The models that work needs, each with its role."""

from enum import StrEnum

import msgspec

from domains.model.execution import AS_FLOAT32, AS_USUAL, Execution


class AssetRole(StrEnum):
    """What a model is for in a job."""

    BASE = "base"
    VAE = "vae"
    LORA = "lora"
    TEXTUAL_INVERSION = "textual_inversion"
    CONTROLNET = "controlnet"
    T2I_ADAPTER = "t2i_adapter"
    IP_ADAPTER = "ip_adapter"
    IMAGE_ENCODER = "image_encoder"
    REFINER = "refiner"
    HIRES = "hires"
    UPSCALER = "upscaler"
    DETECTOR = "detector"


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a job needs on its device."""

    role: AssetRole
    model_id: str

    @property
    def loaded(self) -> bool:
        """Whether the device loads it for all jobs, and not for one alone."""
        return self.role not in _OF_JOB

    @property
    def execution(self) -> Execution:
        """How it is loaded for a job alone."""
        return AS_FLOAT32 if self.role in (AssetRole.UPSCALER, AssetRole.DETECTOR) else AS_USUAL


_OF_JOB = (
    *(AssetRole.LORA, AssetRole.TEXTUAL_INVERSION, AssetRole.CONTROLNET, AssetRole.T2I_ADAPTER),
    *(AssetRole.IP_ADAPTER, AssetRole.IMAGE_ENCODER, AssetRole.UPSCALER, AssetRole.DETECTOR),
)
"""Roles of models that come onto the device for jobs that use them, and leave with the last."""

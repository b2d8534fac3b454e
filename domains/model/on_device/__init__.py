"""Brings models onto a device: runs in a worker, with torch.

    steps = loading(Model, device="cuda:0")   # yields Placed after each tensor, returns an OnDeviceModel
    steps.close()                                           # cancels the load
    model = load(Model, device="cuda:0")                    # the same without a break

Nothing here goes online: every config lies in the model's folder.
"""

import os

# Set before the import of huggingface_hub, which reads it once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from domains.device.on_device.torch_errors import translate
from domains.model.on_device.host_tier import HostTier
from domains.model.on_device.layout import picture_layout
from domains.model.on_device.load import Loading, Placed, load, loading, skeleton_key
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.reading import Ready
from domains.model.on_device.shared_modules import SharedModules

__all__ = [
    "HostTier",
    "Loading",
    "OnDeviceModel",
    "Placed",
    "Ready",
    "SharedModules",
    "load",
    "loading",
    "picture_layout",
    "skeleton_key",
    "translate",
]

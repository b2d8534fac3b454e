"""Brings models onto a device: runs in a worker, with torch.

    model = load(Model, device="cuda:0", precision="", progress=…, cancelled=…)   →  OnDeviceModel

Nothing here goes online: every config lies in the model's folder.
"""

import os

# Set before the import of huggingface_hub, which reads it once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from domains.device.on_device.torch_errors import translate
from domains.model.on_device.load import LoadCancelled, load
from domains.model.on_device.on_device_model import OnDeviceModel

__all__ = ["LoadCancelled", "OnDeviceModel", "load", "translate"]

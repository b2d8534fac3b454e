"""Brings models onto a device: runs in a worker, with torch.

    steps = loading(Model, device="cuda:0")   # yields Placed after each tensor, returns an OnDeviceModel
    steps.close()                                           # cancels the load
    model = load(Model, device="cuda:0")                    # the same without a break

Loading: `load` (piece by piece), `components` (empty modules from configs) with `widths`, `derived` and `layout`,
`shared_modules` (parts that are there already), `tokenizer`, `on_device_model` (the result). `control_loading`: ControlNets.
`network_loading` with `upscaler` and `face_detector`: networks beside a model.

Reading weights: `weights` (into a module) with `flat` (one allocation for all), `single_file` with `conversion` (a
checkpoint in one file), `reading` (the plain way), `leased_map` (CPU: the pages of the file themselves), `cuda_reading` with
`file_map` (CUDA), `host_tier` (what stays in host memory). `quantized_layers`: weights in fewer bits. `component_turns`:
models larger than the device. `unpickle` runs in a process that is thrown away.

Converting: `convert_child` (the process), `conversion_plan`, `conversion_modules`, `conversion_files`, `rewrite` with
`stored_dtypes`.

Nothing here goes online: every config lies in the model's folder.
"""

import os

# Set before the import of huggingface_hub, which reads it once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from domains.device.on_device.torch_errors import translate
from domains.model.on_device.component_turns import ComponentTurns
from domains.model.on_device.control_loading import loading_controlnet
from domains.model.on_device.face_detector import INPUT_PX, FaceDetector, loading_detector
from domains.model.on_device.host_tier import HostTier
from domains.model.on_device.image_encoder import loading_image_encoder
from domains.model.on_device.layout import picture_layout
from domains.model.on_device.load import Loading, Placed, load, loading, skeleton_key, usual_on
from domains.model.on_device.network_loading import loading_network
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.quantized_layers import (
    codes_of,
    computed_dtype,
    has_codes,
    weight_dtype,
    weight_shape,
    widened,
)
from domains.model.on_device.reading import Ready
from domains.model.on_device.shared_modules import SharedModules
from domains.model.on_device.t2i_adapter import loading_t2i_adapter
from domains.model.on_device.tokenizer import Words, tokenizers
from domains.model.on_device.upscaler import Upscaler, loading_upscaler

__all__ = [
    "INPUT_PX",
    "ComponentTurns",
    "FaceDetector",
    "HostTier",
    "Loading",
    "OnDeviceModel",
    "Placed",
    "Ready",
    "SharedModules",
    "Upscaler",
    "Words",
    "codes_of",
    "computed_dtype",
    "has_codes",
    "load",
    "loading",
    "loading_controlnet",
    "loading_detector",
    "loading_image_encoder",
    "loading_network",
    "loading_t2i_adapter",
    "loading_upscaler",
    "picture_layout",
    "skeleton_key",
    "tokenizers",
    "translate",
    "usual_on",
    "weight_dtype",
    "weight_shape",
    "widened",
]

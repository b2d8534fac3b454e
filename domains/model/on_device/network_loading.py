"""Loads one network beside a model, piece by piece, in the precision and on the device of the model that it works with."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import nn

from domains.device.on_device.torch_errors import translate
from domains.errors import ErrorReason, FailedPrecondition
from domains.model.json_file import read_object
from domains.model.model import Model
from domains.model.on_device.layout import picture_layout
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.reading import NOW, Ready
from domains.model.on_device.weights import Filling, Find, plan
from domains.model.safetensors_header import TensorEntry
from domains.model.weight_file import WeightFile, open_judged

_CONFIG = "config.json"

Build = Callable[[Mapping[str, TensorEntry]], nn.Module]
"""Makes the empty module on `meta` for the tensors of its files."""
Check = Callable[[Any], None]
"""Takes the built module. Raises if it does not fit."""


def config_of(model: Model) -> dict[str, Any]:
    """The config.json beside the weights. Empty: there is none."""
    if not any(file.path == _CONFIG for file in model.files):
        return {}
    with open_judged(model, _CONFIG) as file:
        return read_object(file, _CONFIG, component=model.id, file=_CONFIG)


def without_config(model: Model) -> FailedPrecondition:
    """COMPONENT_MISSING for a network whose weights do not tell its shape."""
    message = f"{model.id} has no config.json beside its weights, which says how it reads maps; add the published one"
    return FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=model.id, file=_CONFIG)


def loading_network(
    model: Model,
    base: OnDeviceModel,
    build: Build,
    check: Check = lambda _: None,
    dtype: torch.dtype | None = None,
    find: Find | None = None,
) -> Generator[Ready, None, nn.Module]:
    """Read a network onto the device of a model, in the precision of its denoiser, or in `dtype`. Yields after each piece.

    `check` is called before any weight is read. `find`: see `plan`. Raises COMPONENT_MISSING without weights, and as
    `domains.model.on_device.loading`.
    """
    module: nn.Module | None = None
    try:
        with ExitStack() as closing:
            files = [closing.enter_context(WeightFile(model, path)) for path in _weights_of(model)]
            for file in files:
                for _ in file.checked():
                    yield NOW
            module = build({name: entry for file in files for name, entry in file.tensors.items()})
            check(module)
            slots = plan(module, model.id, files, dtype or base.dtype, picture_layout(base.device), find)
            with Filling(base.device) as filling:
                for read in filling.fill(module, slots):
                    yield read.ready
                yield filling.ended()
            for file in files:
                file.check_unchanged()
        return module
    except BaseException as error:
        with suppress(RuntimeError):
            if module is not None:
                module.to("meta")
            if base.device.type == "cuda":
                torch.cuda.empty_cache()
        if not isinstance(error, Exception):
            raise
        raise translate(error, base.device, f"loading {model.id}") from None


def _weights_of(model: Model) -> Sequence[str]:
    paths = [file.path for file in model.files if file.path.endswith(".safetensors")]
    if paths:
        return paths
    message = f"{model.id} has no safetensors file; restore it and scan again"
    raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=model.id)

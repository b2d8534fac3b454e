"""Loads a model from its diffusers folder onto a device."""

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from domains.device.on_device.torch_errors import translate
from domains.errors import ErrorReason, FailedPrecondition, NotSupported
from domains.model.model import Model
from domains.model.on_device.components import BUILDERS, build, read_config, tokenizer
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.weights import fill

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Progress = Callable[[int, int], None]
"""Bytes of weight files placed, and their total."""


class LoadCancelled(Exception):
    """The load was asked to end and did; nothing of it is left in memory."""


def load(
    model: Model,
    device: str,
    precision: str = "",
    progress: Progress = lambda completed, total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> OnDeviceModel:
    """Read a model's weights onto a device. `precision` empty: the fastest that the device computes well.

    `progress` and `cancelled` are called between tensors. Raises LoadCancelled, COMPONENT_MISSING, MODEL_CORRUPT,
    MODEL_INCOMPATIBLE (no such family), NOT_SUPPORTED_ON_DEVICE (precision), and what `translate` says of torch's errors.
    """
    place = torch.device(device)
    modules: dict[str, nn.Module] = {}
    try:
        return _load(model, place, _dtype(place, precision), modules, progress, cancelled)
    except Exception as error:
        # A poisoned context refuses this too; then its process has to end, which gives everything back.
        with suppress(RuntimeError):
            # The error's traceback would keep half a model alive for as long as somebody holds the error.
            for module in modules.values():
                module.to("meta")
            modules.clear()
            _give_back(place)
        if isinstance(error, LoadCancelled):
            raise
        raise translate(error, place, f"loading {model.id}") from None


def _load(
    model: Model,
    place: torch.device,
    dtype: torch.dtype,
    modules: dict[str, nn.Module],
    progress: Progress,
    cancelled: Callable[[], bool],
) -> OnDeviceModel:
    started = time.perf_counter()
    folder = Path(model.folder)
    builders = _builders(model)
    config = read_config(folder, "scheduler", "scheduler_config.json")
    words = tokenizer(folder)
    files = {component: _weight_files(model, component) for component in builders}
    total = sum(path.stat().st_size for paths in files.values() for path in paths if path.exists())
    done = 0

    def placed(size: int) -> None:
        nonlocal done
        done += size
        if cancelled():
            raise LoadCancelled(model.id)
        progress(min(done, total), total)

    progress(0, total)
    for component, builder in builders.items():
        modules[component] = build(folder, component, builder)
        fill(modules[component], component, files[component], place, _dtype_of(modules[component], dtype), placed)
    progress(total, total)
    return OnDeviceModel(
        model=model,
        device=place,
        dtype=dtype,
        modules=dict(modules),
        tokenizer=words,
        scheduler_config=config,
        bytes_per_component={component: _bytes(module) for component, module in modules.items()},
        load_s=time.perf_counter() - started,
    )


def _builders(model: Model):
    if model.family in BUILDERS:
        return BUILDERS[model.family]
    known = ", ".join(BUILDERS)
    message = f"model {model.id} is of the family {model.family or 'unknown'!r}; this worker computes: {known}"
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id, family=model.family)


def _weight_files(model: Model, component: str) -> list[Path]:
    """The component's safetensors files, as the scan found them."""
    names = next((part.files for part in model.components if part.id == component), ())
    return [Path(model.folder) / name for name in sorted(names) if name.endswith(".safetensors")]


def _dtype(place: torch.device, precision: str) -> torch.dtype:
    if not precision:
        if place.type != "cuda":
            return torch.float32
        # Older devices emulate bfloat16, slowly.
        return torch.bfloat16 if torch.cuda.get_device_capability(place) >= (8, 0) else torch.float16
    if precision in PRECISIONS:
        return PRECISIONS[precision]
    message = f"{precision!r} is no precision this worker computes in; known: {', '.join(PRECISIONS)}"
    raise NotSupported(message, precision=precision)


def _dtype_of(module: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """float32 for a VAE whose activations leave float16's range (it says so itself), else the model's."""
    upcast = bool(getattr(getattr(module, "config", None), "force_upcast", False))
    return torch.float32 if upcast and dtype is torch.float16 else dtype


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _give_back(place: torch.device) -> None:
    gc.collect()
    if place.type == "cuda":
        torch.cuda.empty_cache()

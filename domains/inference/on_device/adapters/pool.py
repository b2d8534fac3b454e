"""Keeps LoRAs in host memory, each content once, and makes the adapters of jobs from them."""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence

import torch
from torch import nn

from domains.errors import FailedPrecondition
from domains.inference.generation import ResolvedLora
from domains.inference.on_device.adapters.beside import NO_ADAPTERS, Adapters, Delta, hook
from domains.inference.on_device.adapters.factors import Factors, LowRank, Magnitudes, joined, magnitudes
from domains.inference.on_device.adapters.lora_file import LoraFile, read_lora
from domains.inference.on_device.adapters.lora_fit import Fitted, fit
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel

_MOST_BYTES = 2 * 1024**3
"""Ten large LoRAs of SDXL."""


class AdapterPool:
    """The most recently used LoRAs of one worker."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        """Drops the oldest beyond the limit, but never the last one that was asked for."""
        self._files: OrderedDict[str, LoraFile] = OrderedDict()
        self._fitted: dict[tuple[str, str], tuple[Fitted, ...]] = {}
        """By hash of the LoRA and of the model: where its tensors belong."""
        self._most_bytes = most_bytes

    def adapters(self, loras: Sequence[ResolvedLora], models: Sequence[Model], loaded: OnDeviceModel) -> Adapters:
        """The adapters of a job. `models`: the LoRAs' entries in the catalogue, in the same order.

        Raises MODEL_INCOMPATIBLE, and what reading a file raises.
        """
        parts: defaultdict[tuple[str, str], list[tuple[Fitted, float]]] = defaultdict(list)
        for lora, model in zip(loras, models, strict=True):
            _check_content(lora, model)
            for fitted in self._fit(model, loaded):
                if weight := lora.weight_of(fitted.layer.component):
                    parts[fitted.layer].append((fitted, weight))
        if not parts:
            return NO_ADAPTERS
        layers: dict[nn.Module, Delta] = {}
        with torch.inference_mode(mode=False), torch.no_grad():
            for (component, path), some in parts.items():
                layer = loaded.modules[component].get_submodule(path)
                layers[layer] = _delta(layer, some)
        hook(list(layers))
        of_texts = _of_texts(loras) if any(map(_is_text, parts)) else ""
        # The UNet keeps each row in its place; other denoisers flatten them.
        return Adapters(layers=layers, of_texts=of_texts, by_rows="unet" in loaded.modules)

    def _fit(self, model: Model, loaded: OnDeviceModel) -> tuple[Fitted, ...]:
        file = self._file(model)
        key = (file.sha256, loaded.model.sha256)
        if key not in self._fitted:
            self._fitted[key] = fit(file, loaded)
        return self._fitted[key]

    def _file(self, model: Model) -> LoraFile:
        """The LoRA's file, read once for all models with its content."""
        sha256 = model.files[0].sha256
        file = self._files.get(sha256)
        if file is None:
            file = self._files[sha256] = read_lora(model)
            while len(self._files) > 1 and self.held_bytes() > self._most_bytes:
                self._forget(next(iter(self._files)))
        self._files.move_to_end(sha256)
        return file

    def held_bytes(self) -> int:
        """Bytes of host memory that the files take."""
        return sum(file.size_bytes for file in self._files.values())

    def clear(self) -> None:
        """Drop all files. Jobs keep what they use."""
        self._files.clear()
        self._fitted.clear()

    def _forget(self, sha256: str) -> None:
        del self._files[sha256]
        self._fitted = {key: fitted for key, fitted in self._fitted.items() if key[0] != sha256}


def _check_content(lora: ResolvedLora, model: Model) -> None:
    """Raise ILLEGAL_STATE if the file is another one than that of the request."""
    if lora.model_sha256 != model.files[0].sha256:
        message = f"the file of LoRA {lora.model_id} has changed since the request came; send the request again"
        raise FailedPrecondition(message, model_id=lora.model_id)


def _delta(layer: nn.Module, parts: Sequence[tuple[Fitted, float]]) -> Delta:
    weight: torch.Tensor = layer.weight  # pyright: ignore[reportAssignmentType]  # a linear layer or a convolution
    low_rank: list[LowRank] = []
    others: list[Factors] = []
    lengthened: list[Magnitudes] = []
    for fitted, strength in parts:
        dtype = weight.dtype if fitted.lengths is None else torch.float32
        factors = fitted.factors.scaled(fitted.scale * strength, weight.device, dtype)
        if fitted.lengths is not None:
            placed = fitted.factors.scaled(fitted.scale * strength, weight.device, weight.dtype)
            lengthened.append(magnitudes(factors, placed, fitted.lengths, layer))
        elif isinstance(factors, LowRank):
            low_rank.append(factors)
        else:
            others.append(factors)
    return Delta(low_rank=joined(low_rank) if low_rank else None, others=others, magnitudes=lengthened)


def _is_text(layer: tuple[str, str]) -> bool:
    return layer[0].startswith("text_encoder")


def _of_texts(loras: Sequence[ResolvedLora]) -> str:
    """The LoRAs and their weights in the text encoders, as text."""
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    weights = ((lora.model_sha256, *(lora.weight_of(encoder) for encoder in encoders)) for lora in loras)
    return repr(sorted(weights))

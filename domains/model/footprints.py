"""Forecasts what a model takes on a device: from the headers of its files, and from loads that were measured."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from domains.device.device import Backend, Device
from domains.errors import DeviceOpsError
from domains.model.catalogue import Catalogue
from domains.model.component_config import read_config
from domains.model.execution import AS_USUAL, Execution, leaves_float16, precision_of, usual_precision
from domains.model.families import FAMILIES
from domains.model.header_facts import header_facts
from domains.model.layers import LayerSizes, layer_plans
from domains.model.loaded import LoadedModel, outdated
from domains.model.loaded_models import LoadedModels
from domains.model.model import Component, Model
from domains.model.remembered import Remembered

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_REMEMBERED = 16
"""Loads per device, and per model and device."""
_SINCE_GFX9 = (9, 0)
"""Capability that torch tells for GPUs of ROCm, whose name is no number."""


class PartFootprint(msgspec.Struct, frozen=True, kw_only=True):
    """What one component takes on a device."""

    component: str
    precision: str
    """Precision that it will have there, in torch's words."""
    bytes: int
    """Bytes that its load adds. 0: it is there already."""
    quantization: str = ""
    """How its weights are stored in fewer bits. Empty: they are not."""
    shared_with: tuple[str, ...] = ()
    """Ids of loaded models that have it already."""


class Footprints:
    """Forecasts. Learns from each load."""

    def __init__(self, catalogue: Catalogue, loaded: LoadedModels) -> None:
        self._catalogue = catalogue
        self._loaded = loaded
        self._sizes: dict[tuple[str, str, str, str], int] = {}
        """Measured bytes by hash of the model, component, precision and quantization."""
        self._times: defaultdict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        """Seconds of loads by model and device."""
        self._rates: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        """Seconds for each byte on the device, by device."""
        self._configs = Remembered(_config)
        self._headers = Remembered(lambda model, _: header_facts(model))
        loaded.listeners.append(self._learn)

    async def read_headers(self, model_ids: Iterable[str]) -> None:
        """Read what forecasts of streamed layers, of quantized weights, and of what is kept of prompts need of models'
        headers, beside the event loop: the largest take half a second. Skips models that are not known."""
        for model in [self._catalogue.find(name) for name in model_ids]:
            if model is not None:
                await self._headers.read(model)

    def parts(self, model: Model, device: Device, execution: Execution) -> list[PartFootprint]:
        """What each component with weights takes on a device, in the order of the model."""
        usual = _usual_precision(device)
        there = [one for one in self._loaded.list() if one.device_id == device.id and self._can_share(one)]
        parts = [
            self._part(model, component, execution, usual, there)
            for component in model.components
            if component.parameter_count
        ]
        return self._in_layers(model, parts, execution.offload_budget_bytes) if execution.by_layer else parts

    def need_bytes(self, model: Model, device: Device, execution: Execution) -> int:
        """Bytes that a load of the model adds on a device; of components that take turns, the most at once."""
        return added_bytes(self.parts(model, device, execution), execution)

    def named_bytes(self, model_ids: Iterable[str], device: Device, execution: Execution = AS_USUAL) -> int:
        """Bytes that loads of these models add on a device, if nothing is said with the server's choice of precision and
        offloading."""
        found = [self._catalogue.find(name) for name in model_ids]
        return sum(self.need_bytes(model, device, execution) for model in found if model is not None)

    def reading_bytes(self, model_id: str, device: Device, tokens: int, prompts: int, *, pooled: int) -> int:
        """Bytes that a denoiser or a ControlNet keeps of so many prompts, each of so many tokens, in the precision that the
        server chooses. `pooled`: how many of them it reads as a whole, too."""
        model = self._catalogue.find(model_id)
        facts = None if model is None else self._headers.of(model)
        if model is None or facts is None:
            return 0
        found = 0
        for part in self.parts(model, device, AS_USUAL):
            kept = facts[part.component].reading
            values = kept.of_token * tokens * prompts + kept.of_prompt * pooled
            found += values * _BYTES.get(part.precision, 4)
        return found

    def load_s(self, model: Model, device_id: str, size_bytes: int) -> float | None:
        """Seconds that a load of so many bytes takes. None: nothing was loaded on the device yet."""
        if times := self._times.get((model.id, device_id)):
            return median(times)
        rates = self._rates.get(device_id)
        return median(rates) * size_bytes if rates else None

    def load_count(self, model: Model, device_id: str) -> int:
        """Number of measured loads of the model on the device."""
        return len(self._times.get((model.id, device_id), ()))

    def _part(
        self, model: Model, component: Component, execution: Execution, usual: str, there: list[LoadedModel]
    ) -> PartFootprint:
        upcast = leaves_float16(self._configs.of(model, component.id))
        precision = precision_of(component.id, execution, usual, upcast=upcast)
        able = () if execution.in_turns else there
        quantization = execution.quantization_of(component.id, _denoiser(model))
        shared = tuple(one.id for one in able if self._has(one, model, component.id, precision, quantization))
        known = None if shared else self._sizes.get((model.sha256, component.id, precision, quantization))
        size = 0 if shared else self._forecast(model, component, precision, quantization) if known is None else known
        return PartFootprint(
            component=component.id,
            precision=precision,
            quantization=quantization,
            bytes=size,
            shared_with=shared[:16],
        )

    def _forecast(self, model: Model, component: Component, precision: str, quantization: str) -> int:
        """Bytes of a component that was never measured so."""
        width = _BYTES.get(precision, 4)
        facts = (self._headers.of(model) or {}).get(component.id) if quantization else None
        saved = 0 if facts is None or facts.quantized is None else facts.quantized.saved_bytes(width, quantization)
        return component.parameter_count * width - saved

    def _in_layers(self, model: Model, parts: Sequence[PartFootprint], budget_bytes: int) -> list[PartFootprint]:
        """The parts with the bytes of the plan for components whose layers may be streamed."""
        facts, sizes = self._headers.of(model) or {}, dict[str, LayerSizes]()
        for part in parts:
            of_part = facts.get(part.component)
            of_layers = None if of_part is None else of_part.placed(_BYTES.get(part.precision, 4), part.quantization)
            if of_layers is not None:
                sizes[part.component] = of_layers
        planned = layer_plans(sizes, budget_bytes)
        return [
            msgspec.structs.replace(part, bytes=planned[part.component].total_bytes)
            if part.component in planned
            else part
            for part in parts
        ]

    def _has(self, one: LoadedModel, model: Model, component: str, precision: str, quantization: str) -> bool:
        """Whether a loaded model holds the component of another (or the same) model in this precision and quantization."""
        has = next((part for part in one.components if part.id == component), None)
        if has is None or (has.precision, has.quantization) != (precision, quantization):
            return False
        other = self._catalogue.find(one.model_id)
        return other is not None and (other.id == model.id or self._same(model, other, component))

    def _same(self, model: Model, other: Model, component: str) -> bool:
        """Whether two models have the same component: of the same family, with the same weight files and config."""
        hashes = _hashes(model, component)
        return (
            bool(hashes)
            and model.family == other.family
            and hashes == _hashes(other, component)
            and self._configs.of(model, component) == self._configs.of(other, component)
        )

    def _can_share(self, one: LoadedModel) -> bool:
        """Whether its components stay on the device, with the weights that the last scan saw."""
        if one.resident_bytes < one.size_bytes:
            return False
        model = self._catalogue.find(one.model_id)
        return model is not None and not outdated(one, model.sha256)

    def _learn(self, one: LoadedModel, there: bool) -> None:
        if not there or not one.model_sha256:
            return
        for part in one.components if one.device_id else ():
            self._sizes[one.model_sha256, part.id, part.precision, part.quantization] = part.bytes
        if one.load_s is not None and one.size_bytes:
            self._times[one.model_id, one.device_id].append(one.load_s)
            self._rates[one.device_id].append(one.load_s / one.size_bytes)


def added_bytes(parts: Sequence[PartFootprint], execution: Execution) -> int:
    """Bytes that parts add together; of components that take turns, the most at once. Text encoders share a turn."""
    if not execution.in_turns:
        return sum(part.bytes for part in parts)
    texts = sum(part.bytes for part in parts if part.component.startswith("text_encoder"))
    return max([texts, *(part.bytes for part in parts)])


def _denoiser(model: Model) -> str:
    """The id of the model's denoiser. Empty: its family is not known."""
    facts = FAMILIES.get(model.family)
    return "" if facts is None else facts.denoiser.id


def _usual_precision(device: Device) -> str:
    if device.backend not in (Backend.CUDA, Backend.ROCM):
        return usual_precision(None)
    major, _, minor = device.compute_capability.partition(".")
    known = major.isdecimal() and minor.isdecimal()
    return usual_precision((int(major), int(minor)) if known else _SINCE_GFX9)


def _hashes(model: Model, component: str) -> tuple[str, ...]:
    """Hashes of a component's weight files; empty: one was never hashed."""
    files = next((part.files for part in model.components if part.id == component), ())
    found = tuple(model.stamp(name).sha256 for name in sorted(files) if name.endswith(".safetensors"))
    return found if all(found) else ()


def _config(model: Model, component: str) -> dict[str, object]:
    """A component's config.json. Empty where it cannot be read."""
    try:
        return read_config(model, component, "config.json")
    except (DeviceOpsError, OSError):
        return {}

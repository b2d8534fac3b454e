"""Loads a model from its diffusers folder onto a device, piece by piece."""

import dataclasses
import time
import traceback
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import msgspec
import torch
from torch import nn

from domains.device.on_device.torch_errors import translate
from domains.errors import ErrorReason, FailedPrecondition, NotSupported
from domains.model.component_config import read_config
from domains.model.execution import AS_USUAL, PRECISIONS, Execution, leaves_float16, precision_of, usual_precision
from domains.model.families import FAMILIES, Part
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelLayout
from domains.model.on_device.component_turns import ComponentTurns
from domains.model.on_device.components import BUILDERS, Builder, build
from domains.model.on_device.flat import Slots
from domains.model.on_device.host_tier import HostTier, Skeleton
from domains.model.on_device.layout import picture_layout
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.quantized_layers import hold_codes
from domains.model.on_device.reading import NOW, Ready
from domains.model.on_device.shared_modules import SharedModules, content_key, kind_of
from domains.model.on_device.single_file import finder
from domains.model.on_device.tokenizer import fit, tokenizer, tokenizer_of
from domains.model.on_device.weights import Filling, Find, plan
from domains.model.on_device.widths import check_widths
from domains.model.scheduler_config import fault_in
from domains.model.ways import AS_THE_SERVER_CHOOSES, OF_HALF_PRECISION
from domains.model.weight_file import WeightFile
from domains.model.weight_quantization import QUANTIZATIONS, UNQUANTIZED

Result = TypeVar("Result")
Judge = Callable[[Mapping[str, Any]], None]
"""Takes a model's scheduler config. Raises MODEL_INCOMPATIBLE if no sampler can work with it."""


@dataclass(frozen=True)
class Placed:
    """How far a load has come."""

    completed: int
    """Bytes of the weight files that are placed."""
    total: int
    ready: Ready = NOW
    """When the load can go on."""
    parts: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    """Bytes on the device so far, by component; those that were there before are left out."""
    coming: "Coming | None" = None
    """The model, of which all copies are enqueued. None: it cannot be used before the load's end."""


@dataclass(frozen=True)
class Coming:
    """A model whose values are on their way. The load must go on to its end, where it may still fail."""

    model: OnDeviceModel
    hold_computing: Callable[[], None]
    """Has everything that is enqueued later wait for the values on the device. Returns at once."""


Loading = Generator[Placed, None, OnDeviceModel]
"""A load that stops after each piece; it returns the model. `close` cancels it: nothing of it stays in memory."""


def load(
    model: Model,
    device: str,
    precision: str = "",
    progress: Callable[[Placed], None] = lambda placed: None,
    judge: Judge = lambda config: None,
    execution: Execution | None = None,
) -> OnDeviceModel:
    """Load a model without a break. See `loading`. `execution` None: all parts as `precision` says."""
    steps = loading(model, device, execution or Execution(precision=precision), judge)
    try:
        while True:
            placed = next(steps)
            progress(placed)
            while not placed.ready.passed():
                placed.ready.wait()
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def loading(
    model: Model,
    device: str,
    execution: Execution = AS_USUAL,
    judge: Judge = lambda config: None,
    shared: SharedModules | None = None,
    tier: HostTier | None = None,
) -> Loading:
    """Read a model's weights onto a device. `execution` without a precision: the fastest that the device computes well.

    Components that are in `shared` already are not read again. `tier` lends what it kept of the model, and the result keeps
    its files open for it; None: nothing is kept. `judge` is called with the scheduler_config.json before any weight is read,
    and may refuse it. Raises COMPONENT_MISSING, MODEL_CORRUPT, MODEL_INCOMPATIBLE, NOT_SUPPORTED_ON_DEVICE
    (precision, quantization), ILLEGAL_STATE (a file that has changed since its scan), and what `translate` makes of torch's
    errors.
    """
    place = torch.device(device)
    modules: dict[str, nn.Module] = {}
    try:
        return (
            yield from _loading(
                model, place, _filled_in(execution, place), modules, judge, shared or SharedModules(), tier
            )
        )
    except BaseException as error:
        _forget_locals(error)
        # A corrupted context raises here too; the end of its process then frees everything.
        with suppress(RuntimeError):
            # Modules refer to themselves, so their memory would be kept until the next garbage collection.
            for module in modules.values():
                module.to("meta")
            modules.clear()
            if place.type == "cuda":
                torch.cuda.empty_cache()
        if not isinstance(error, Exception):
            raise
        raise translate(error, place, f"loading {model.id}") from None


def _loading(
    model: Model,
    place: torch.device,
    execution: Execution,
    modules: dict[str, nn.Module],
    judge: Judge,
    shared: SharedModules,
    tier: HostTier | None,
) -> Loading:
    """See `loading`. Puts the modules that it fills into `modules`."""
    started = time.perf_counter()
    builders = _builders(model)
    config = _scheduler_config(model)
    judge(config)
    dtypes = {part: _dtype(model, part, execution) for part in builders}
    if execution.in_turns:
        return (yield from _in_turns(model, place, execution, builders, dtypes, config, tier, started))
    keys = {
        part: content_key(
            model, part, _weights(model, part), place, dtypes[part], _quantization(model, part, execution)
        )
        for part in builders
    }
    there = shared.find(keys)
    for path in chain.from_iterable(_weights(model, part) for part in there):
        # They are not read again, but files that have changed since the scan are refused all the same.
        with WeightFile(model, path) as file:
            for _ in file.checked():
                yield Placed(0, 0)
    with ExitStack() as closing:
        needed = builders.keys() - there.keys()
        skeleton = tier.take(skeleton_key(model, execution), needed) if tier is not None else None
        if skeleton is None:
            skeleton = yield from _skeleton(model, builders, there, dtypes, picture_layout(place), execution)
        closing.callback(skeleton.close)
        kinds = {part: kind_of(model, part, place) for part in builders}
        for part in skeleton.modules.keys() - there.keys():
            alike = yield from _placing(shared.alike.find(kinds[part], skeleton.slots[part]))
            if alike is not None:
                there[part] = alike
        modules |= {part: module for part, module in skeleton.modules.items() if part not in there}
        everything = {part: there.get(part) or modules[part] for part in builders}
        total, done = sum({file: file.size_bytes for part in modules for file in _files(skeleton, part)}.values()), 0
        yield Placed(0, total)
        placed: dict[str, int] = {}
        with Filling(place, tier) as filling:
            for part, module in modules.items():
                begin, slots = done, skeleton.slots[part]
                stored, whole = sum(slot.stored_bytes for slot in slots), sum(slot.placed_bytes for slot in slots)
                for read in filling.fill(module, slots):
                    done += read.size
                    placed[part] = whole * (done - begin) // max(1, stored)
                    yield Placed(min(done, total), total, read.ready, dict(placed))
            for part, module in modules.items():
                if part not in skeleton.bytes_of:
                    skeleton.bytes_of[part] = _bytes(module)
            sizes = {
                part: skeleton.bytes_of[part] if part in modules else _bytes(module)
                for part, module in everything.items()
            }
            loaded = OnDeviceModel(
                model=model,
                device=place,
                dtype=_TORCH[execution.precision],
                execution=execution,
                modules=everything,
                tokenizers=skeleton.words,
                scheduler_config=config,
                bytes_per_component=sizes,
                load_s=time.perf_counter() - started,
                loaded_at_s=time.time(),
                skeleton=skeleton if tier is not None else None,
            )
            # Headers and unused tensors count too.
            coming = Coming(loaded, filling.hold_computing)
            yield Placed(total, total, filling.ended(), parts=placed, coming=coming)
        for file in skeleton.files:
            file.check_unchanged()
        if tier is not None:
            closing.pop_all()
    for part, module in modules.items():
        # Shared only now, because a load that is cancelled empties its modules.
        shared.alike.put(module, model, kinds[part], skeleton.slots[part])
    for part, module in everything.items():
        shared.put(keys[part], module)
    return dataclasses.replace(loaded, load_s=time.perf_counter() - started, loaded_at_s=time.time())


def _in_turns(
    model: Model,
    place: torch.device,
    execution: Execution,
    builders: Mapping[str, Builder],
    dtypes: Mapping[str, torch.dtype],
    config: Mapping[str, Any],
    tier: HostTier | None,
    started: float,
) -> Loading:
    """A load whose components take turns on the device. They share nothing: each leaves while another model computes."""
    skeleton = tier.take(skeleton_key(model, execution), builders.keys()) if tier is not None else None
    if skeleton is None:
        skeleton = yield from _skeleton(model, builders, {}, dtypes, picture_layout(place), execution)
    streamed = [FAMILIES[model.family].denoiser.id, *_text_encoders(model, builders)] if execution.by_layer else []
    turns = ComponentTurns(skeleton, place, tier, streamed, execution.offload_budget_bytes)
    try:
        for placed in turns.visits():
            yield Placed(placed.completed, placed.total, placed.ready, placed.here)
    except BaseException:
        turns.close()
        skeleton.close()
        raise
    return OnDeviceModel(
        model=model,
        device=place,
        dtype=_TORCH[execution.precision],
        execution=execution,
        modules=skeleton.modules,
        tokenizers=skeleton.words,
        scheduler_config=config,
        bytes_per_component={part: turns.whole_bytes(part) for part in skeleton.modules},
        load_s=time.perf_counter() - started,
        loaded_at_s=time.time(),
        skeleton=skeleton if tier is not None else None,
        turns=turns,
    )


def _placing(steps: Generator[None, None, Result]) -> Generator[Placed, None, Result]:
    """Work before any byte is placed, piece by piece."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield Placed(0, 0)


def _skeleton(
    model: Model,
    builders: Mapping[str, Builder],
    there: Mapping[str, nn.Module],
    dtypes: Mapping[str, torch.dtype],
    layout: torch.memory_format,
    execution: Execution,
) -> Generator[Placed, None, Skeleton]:
    """Open and check the files of the components that are not there, and build their modules."""
    words = {part: tokenizer(model, tokenizer_of(part)) for part in _text_encoders(model, builders)}
    with ExitStack() as closing:
        paths = {part: _weights(model, part) for part in builders if part not in there}
        # A single file holds several components.
        opened = {
            path: closing.enter_context(WeightFile(model, path)) for path in dict.fromkeys(chain(*paths.values()))
        }
        files = {part: [opened[path] for path in some] for part, some in paths.items()}
        everything = list(opened.values())
        total = sum(file.size_bytes for file in everything)
        for file in everything:
            for _ in file.checked():
                yield Placed(0, total)
        modules: dict[str, nn.Module] = {}
        for part, some in files.items():
            modules[part] = build(model, part, builders[part], sum(len(file.tensors) for file in some))
            yield Placed(0, total)
        for part, encoder in _text_encoders(model, builders).items():
            fit(words[part], tokenizer_of(part), (modules | dict(there))[part], encoder.tokens)
        check_widths(model.family, modules | dict(there))
        slots = {
            part: plan(
                module,
                part,
                files[part],
                dtypes[part],
                layout,
                _find(model, part, module),
                _quantization(model, part, execution),
            )
            for part, module in modules.items()
        }
        for part, module in modules.items():
            _hold_codes(module, slots[part], dtypes[part])
        closing.pop_all()
        return Skeleton(words=words, modules=modules, slots=slots, files=everything)


def _quantization(model: Model, part: str, execution: Execution) -> str:
    """How a component's weights become codes. Empty: they do not."""
    return execution.quantization_of(part, FAMILIES[model.family].denoiser.id)


def _hold_codes(module: nn.Module, slots: Slots, dtype: torch.dtype) -> None:
    owners = slots.owners_in(module)
    for slot in slots:
        if slot.quantized:
            hold_codes(owners[slot.name.rpartition(".")[0]], dtype, scaled=slot.scaled)


def _find(model: Model, part: str, module: nn.Module) -> Find | None:
    """How the component's tensors are found in its file. None: by their names."""
    component = next(one for one in model.components if one.id == part)
    return finder(model.family, part, module) if component.layout is ModelLayout.FILE else None


def _files(skeleton: Skeleton, part: str) -> set[WeightFile]:
    return {slot.file for slot in skeleton.slots[part]}


def skeleton_key(model: Model, execution: Execution) -> Hashable:
    """Names a model's content in its precisions, for `HostTier`. How it computes with them changes no module."""
    return model.id, model.sha256, msgspec.structs.replace(execution, ways=AS_THE_SERVER_CHOOSES)


def _scheduler_config(model: Model) -> dict[str, Any]:
    config = read_config(model, "scheduler", "scheduler_config.json")
    if fault := fault_in(config):
        facts = {"component": "scheduler", "file": "scheduler_config.json", "field": fault.field}
        raise FailedPrecondition(fault.message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
    return config


def _builders(model: Model) -> Mapping[str, Builder]:
    """Builders of the model's components, without the optional ones that it lacks. Raises if its family has no builders."""
    if model.family in BUILDERS:
        optional = {part.id for part in FAMILIES[model.family].parts if part.optional}
        absent = optional - {component.id for component in model.components}
        return {part: builder for part, builder in BUILDERS[model.family].items() if part not in absent}
    known = ", ".join(BUILDERS)
    message = f"model {model.id} is of the family {model.family or 'unknown'!r}; this worker computes: {known}"
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id, family=model.family)


def _text_encoders(model: Model, builders: Mapping[str, Builder]) -> Mapping[str, Part]:
    """Facts of the text encoders that are loaded, by component id."""
    parts = FAMILIES[model.family].parts
    return {part.id: part for part in parts if part.id in builders and part.kind is ModelKind.TEXT_ENCODER}


def _weights(model: Model, component: str) -> list[str]:
    """The component's safetensors files, as the scan chose them."""
    names = next((part.files for part in model.components if part.id == component), ())
    return [name for name in sorted(names) if name.endswith(".safetensors")]


def _filled_in(execution: Execution, place: torch.device) -> Execution:
    """What is asked for, with the denoiser's precision. Raises NOT_SUPPORTED_ON_DEVICE for an unknown precision or
    quantization, and for a kernel that does not compute in the precision."""
    for precision in execution.named:
        if precision not in PRECISIONS:
            message = f"{precision!r} is no precision this worker computes in; known: {', '.join(PRECISIONS)}"
            raise NotSupported(message, precision=precision)
    if execution.quantization not in ("", UNQUANTIZED, *QUANTIZATIONS):
        message = f"{execution.quantization!r} is no quantization of this worker; known: {', '.join(QUANTIZATIONS)}"
        raise NotSupported(message, quantization=execution.quantization)
    filled = msgspec.structs.replace(execution, precision=execution.precision or usual_on(place))
    kernel = execution.ways.attention_kernel
    if kernel in OF_HALF_PRECISION and place.type == "cuda" and filled.precision == "float32":
        message = f"{kernel} attention computes in half precision alone on {place}; load in another execution.precision"
        raise NotSupported(
            f"{message} than float32, or with another execution.attention_kernel", attention_kernel=kernel
        )
    return filled


def usual_on(place: torch.device) -> str:
    """The precision in which models are loaded onto a device if none is asked for."""
    return usual_precision(torch.cuda.get_device_capability(place) if place.type == "cuda" else None)


def _dtype(model: Model, part: str, execution: Execution) -> torch.dtype:
    """The dtype of a component."""
    upcast = leaves_float16(read_config(model, part, "config.json"))
    return _TORCH[precision_of(part, execution, execution.precision, upcast=upcast)]


_TORCH = {name: getattr(torch, name) for name in PRECISIONS}


def _bytes(module: nn.Module) -> int:
    """Of all parameters and buffers, found in one walk; torch's own iterators walk once for each kind."""
    tensors = {
        id(tensor): tensor
        for owner in module.modules()
        for tensor in (*owner._parameters.values(), *owner._buffers.values())  # pyright: ignore[reportPrivateUsage]
        if tensor is not None
    }
    return sum(tensor.nbytes for tensor in tensors.values())


def _forget_locals(error: BaseException) -> None:
    """Drop the variables of the functions that an error has left: they would be kept as long as the error is."""
    one: BaseException | None = error
    while one is not None:
        traceback.clear_frames(one.__traceback__)
        one = one.__context__

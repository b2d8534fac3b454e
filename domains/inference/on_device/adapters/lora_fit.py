"""Fits the tensors of a LoRA to the layers of a loaded model. What does not fit is refused by name, before any step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition, excerpt
from domains.inference.on_device.adapters.adapter_file import AdapterFile
from domains.inference.on_device.adapters.factors import Factors, Hadamard, Kronecker, LowRank
from domains.inference.on_device.adapters.lora_conversion import NotConverted, converted
from domains.inference.on_device.adapters.lora_names import Layer, layers_of
from domains.inference.on_device.adapters.lora_parts import LoraModule, modules_of, scale_by_settings
from domains.inference.on_device.adapters.lora_standing import needs_standing, standing, with_own_names
from domains.model.on_device import OnDeviceModel, weight_dtype, weight_shape

_SHOWN = 4
_LOW_RANK = {"down", "up", "mid", "alpha", "lengths"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A LoRA's difference for one layer, in host memory."""

    layer: Layer
    factors: Factors
    scale: float
    """alpha ÷ rank."""
    lengths: Tensor | None
    """(out,): DoRA's length of each row of the weight. None: it has none."""


class Misfit(Exception):
    """A tensor that cannot be applied; the message says why."""


def fit(file: AdapterFile, loaded: OnDeviceModel) -> tuple[Fitted, ...]:
    """The difference for each layer. Raises MODEL_INCOMPATIBLE, naming the LoRA, the model and the tensors."""
    try:
        modules, others = _modules(file, loaded)
    except NotConverted as error:
        _refuse(file, loaded, str(error), error.names)
    if others:
        _refuse(file, loaded, "this server cannot apply them", others)
    # A lone alpha belongs to a layer that the training left out.
    modules = {stem: module for stem, module in modules.items() if set(module.parts) - {"alpha"}}
    layers = _layers(file, loaded, modules)
    owners = {component: dict(loaded.modules[component].named_modules()) for component, _ in layers.values()}
    unknown = [
        stem for stem in modules if stem not in layers or layers[stem].path not in owners[layers[stem].component]
    ]
    if unknown:
        _refuse(file, loaded, "the model has no such layers", _names(modules, unknown))
    fitted: list[Fitted] = []
    for stem, layer in layers.items():
        try:
            fitted.append(_fitted(file, modules[stem], layer, owners[layer.component][layer.path]))
        except Misfit as misfit:
            _refuse(file, loaded, str(misfit), modules[stem].names)
    return tuple(fitted)


def _modules(file: AdapterFile, loaded: OnDeviceModel) -> tuple[dict[str, LoraModule], list[str]]:
    """The tensors by layer, under names that `layers_of` converts; and the names of those that belong to none."""
    if "unet" in loaded.modules:
        return modules_of(file.tensors)
    tensors = with_own_names(file.tensors, loaded.modules["transformer"])
    if needs_standing(tensors):
        return standing(tensors, loaded.family)
    return modules_of(converted(tensors, loaded.family))


def _layers(file: AdapterFile, loaded: OnDeviceModel, modules: Mapping[str, LoraModule]) -> Mapping[str, Layer]:
    names = {stem: module.names for stem, module in modules.items()}
    unet: Any = loaded.modules.get("unet")
    try:
        found = layers_of(names, None if unet is None else unet.config)
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        _refuse(file, loaded, f"diffusers cannot convert their names: {excerpt(error)}", _names(modules, modules))
    return {stem: _own(loaded, layer) for stem, layer in found.items() if layer.component in loaded.modules}


def _own(loaded: OnDeviceModel, layer: Layer) -> Layer:
    """transformers 5 has no `text_model` in a CLIPTextModel; older names have it."""
    flat = layer.component.startswith("text_encoder") and not hasattr(loaded.modules[layer.component], "text_model")
    return Layer(layer.component, layer.path.removeprefix("text_model.")) if flat else layer


def _fitted(file: AdapterFile, module: LoraModule, layer: Layer, base: nn.Module) -> Fitted:
    if not isinstance(base, nn.Linear | nn.Conv2d) or (isinstance(base, nn.Conv2d) and base.groups != 1):
        raise Misfit(f"{layer.component}.{layer.path} is a {type(base).__name__}, which no LoRA changes")
    factors, rank = _factors(module.parts, base, module.rows)
    alpha = module.parts.get("alpha")
    scale = scale_by_settings(file.settings, layer.component, layer.path, rank)
    if alpha is not None:
        if alpha.numel() != 1:
            raise Misfit(f"alpha has the shape {tuple(alpha.shape)}, and not one value")
        scale = float(alpha.item()) / rank if rank else 1.0
    return Fitted(layer=layer, factors=factors, scale=scale, lengths=_lengths(module.parts.get("lengths"), base))


def _factors(
    parts: Mapping[str, Tensor], base: nn.Linear | nn.Conv2d, rows: tuple[int, int] | None
) -> tuple[Factors, int]:
    """The difference, and its rank; 0: it has none, and is not scaled."""
    if "down" in parts or "up" in parts:
        return _low_rank(parts, base)
    if any(name.startswith("hada_") for name in parts):
        return _hadamard(parts, base)
    if any(name.startswith("lokr_") for name in parts):
        return _kronecker(parts, base, rows)
    raise Misfit("this server cannot apply them: it applies LoRA, LoCon, LoHa, LoKr and DoRA")


def _low_rank(parts: Mapping[str, Tensor], base: nn.Linear | nn.Conv2d) -> tuple[Factors, int]:
    _only(parts, _LOW_RANK)
    down, up, mid = (parts.get(name) for name in ("down", "up", "mid"))
    if down is None or up is None:
        raise Misfit("they lack one of the two matrices of a LoRA")
    rank = down.shape[0]
    if mid is not None:
        # The core of a Tucker decomposition: one convolution with the matrix before it.
        down = (
            (mid.flatten(2).permute(0, 2, 1) @ down.flatten(1).to(mid.dtype))
            .permute(0, 2, 1)
            .unflatten(2, mid.shape[2:])
        )
    shape = weight_shape(base)
    if up.shape[1:2] != (rank,) or up.numel() != shape[0] * rank:
        raise Misfit(_shapes(down, up, base))
    wanted = (rank, *shape[1:])
    if down.shape != wanted:
        if down.numel() != shape[1:].numel() * rank or down.flatten(1).shape[1] != wanted[1]:
            raise Misfit(_shapes(down, up, base))
        down = down.view(wanted)
    return LowRank(down, up.flatten(1)), rank


def _hadamard(parts: Mapping[str, Tensor], base: nn.Linear | nn.Conv2d) -> tuple[Factors, int]:
    names = [(f"hada_w{one}_a", f"hada_w{one}_b", f"hada_t{one}") for one in (1, 2)]
    _only(parts, {*names[0], *names[1], "alpha", "lengths"})
    matrices = [[parts[name] for name in some if name in parts] for some in names]
    if any(len(some) not in (2, 3) for some in matrices):
        raise Misfit("they lack a matrix of a LoHa")
    found = Hadamard(matrices, weight_shape(base))
    return _whole(found, base), matrices[0][1].shape[0]


def _kronecker(
    parts: Mapping[str, Tensor], base: nn.Linear | nn.Conv2d, rows: tuple[int, int] | None
) -> tuple[Factors, int]:
    names = [(f"lokr_w{one}", f"lokr_w{one}_a", f"lokr_w{one}_b", f"lokr_t{one}") for one in (1, 2)]
    _only(parts, {*names[0], *names[1], "alpha", "lengths"})
    matrices = [[parts[name] for name in some if name in parts] for some in names]
    if not all(matrices) or any((some[0] in parts) == (some[1] in parts) for some in names):
        raise Misfit("they lack a matrix of a LoKr")
    # As LyCORIS: the rank of the second factor, if it is decomposed, else that of the first; whole matrices are not scaled.
    ranks = [parts[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in parts]
    return _whole(Kronecker(matrices, weight_shape(base), rows=rows), base), (ranks or [0])[0]


def _whole(factors: Hadamard | Kronecker, base: nn.Linear | nn.Conv2d) -> Factors:
    """The factors, if their product has as many rows and values as the layer's weight."""
    try:
        factors.scaled(1.0, torch.device("cpu"), weight_dtype(base)).weight()
    except RuntimeError:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in factors.tensors())
        raise Misfit(
            f"their product, of {shapes}, has not the shape of the layer, {tuple(weight_shape(base))}"
        ) from None
    return factors


def _lengths(lengths: Tensor | None, base: nn.Linear | nn.Conv2d) -> Tensor | None:
    out = weight_shape(base)[0]
    if lengths is None:
        return None
    # kohya and LyCORIS: (out, 1, …); peft: (out,), or (1, out, 1, 1) for a convolution.
    if lengths.numel() != out or (lengths.dim() == 2 and lengths.shape[0] != out):
        raise Misfit(
            f"dora_scale has the shape {tuple(lengths.shape)}; this server applies one value for each output, ({out}, 1)"
        )
    return lengths.flatten()


def _only(parts: Mapping[str, Tensor], known: set[str]) -> None:
    if more := sorted(set(parts) - known):
        raise Misfit(f"this server cannot apply {', '.join(more)} together with the others")


def _shapes(down: Tensor, up: Tensor, base: nn.Linear | nn.Conv2d) -> str:
    return (
        f"they have the shapes {tuple(down.shape)} and {tuple(up.shape)}, the model's layer {tuple(weight_shape(base))}"
    )


def _names(modules: Mapping[str, LoraModule], stems: Iterable[str]) -> list[str]:
    return [name for stem in stems for name in modules[stem].names]


def _refuse(file: AdapterFile, loaded: OnDeviceModel, why: str, names: Sequence[str]) -> NoReturn:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = ", ".join(name[:128] for name in names[:_SHOWN]) + more
    model = loaded.model
    which = f"model {model.id} of the family {model.family}"
    message = f"LoRA {file.model_id} does not fit {which}, by its tensors {shown}: {why}"
    facts = {"lora_model_id": file.model_id, "model_id": model.id, "tensors": shown}
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)

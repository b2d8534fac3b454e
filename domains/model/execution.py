"""How a model computes: what a load asks for, and what that means for each component."""

from collections.abc import Mapping
from typing import Any

import msgspec

from domains.model.ways import AS_THE_SERVER_CHOOSES, Ways
from domains.model.weight_quantization import UNQUANTIZED

PRECISIONS = ("float32", "bfloat16", "float16")
"""Precisions in which the engine computes, in torch's words."""

BY_COMPONENT = "component"
"""Offloading: only the components that compute are on the device."""
BY_LAYER = "layer"
"""Offloading: the same, and of the denoiser and the text encoders only what a budget permits; other layers are streamed."""
_SHARE = 3 / 4
"""Part of the memory that is left for the weights of a streamed component; the rest is for what it computes."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What a load asks for. An empty text is the server's choice."""

    precision: str = ""
    """Precision of the denoiser, in torch's words."""
    text_encoder_precision: str = ""
    """Precision of the text encoders. Empty: the denoiser's."""
    vae_precision: str = ""
    """Precision of the VAE. Empty: the denoiser's, or a wider one for a VAE that overflows in float16."""
    quantization: str = ""
    """How the denoiser's weights are stored in fewer bits (see `weight_quantization`); `none`: they are not. Empty: they are
    not, or as a model that is there has them."""
    offload: str = ""
    """Which parts wait in host memory: `none`, `component` for all that do not compute, or `layer`. Empty: none."""
    offload_budget_bytes: int = 0
    """With `layer`: most bytes of the denoiser on the device in its turn, and of the text encoders in theirs. They have more
    if their layers do not allow so little; 0: the least that they allow."""
    ways: Ways = AS_THE_SERVER_CHOOSES
    """Everything else that can be chosen."""

    @property
    def in_turns(self) -> bool:
        """Whether the components take turns on the device."""
        return self.offload in (BY_COMPONENT, BY_LAYER)

    @property
    def by_layer(self) -> bool:
        """Whether layers of the denoiser and the text encoders are streamed."""
        return self.offload == BY_LAYER

    def asked_of(self, component: str) -> str:
        """The precision that is asked for a component. Empty: none."""
        if component == "vae":
            return self.vae_precision
        return (component.startswith("text_encoder") and self.text_encoder_precision) or self.precision

    def quantization_of(self, component: str, denoiser: str) -> str:
        """The quantization of a component. Empty: none. `denoiser`: the id of the model's denoiser."""
        return self.quantization if component == denoiser and self.quantization != UNQUANTIZED else ""

    def told_offload(self, device: str) -> str:
        """The offloading on a device, for people. Empty: none."""
        if not self.in_turns:
            return ""
        layers = "; layers of them pass through it while they compute" if self.by_layer else ""
        return f"the components of the model take turns on {device}, which takes longer{layers}"

    @property
    def named(self) -> tuple[str, ...]:
        """All precisions that it names, each once."""
        every = (self.precision, self.text_encoder_precision, self.vae_precision)
        return tuple(dict.fromkeys(filter(None, every)))

    @property
    def reads_headers(self) -> bool:
        """Whether a forecast of it needs the headers of the model's files."""
        return self.by_layer or bool(self.quantizations)

    @property
    def quantizations(self) -> tuple[str, ...]:
        """All quantizations that it needs of a device."""
        return (self.quantization,) if self.quantization not in ("", UNQUANTIZED) else ()


AS_USUAL = Execution()
"""The server's choice in everything."""

AS_FLOAT32 = Execution(precision="float32")
"""The same in full precision."""


def in_turns(execution: Execution) -> Execution:
    """The same with components that take turns on the device."""
    return msgspec.structs.replace(execution, offload=BY_COMPONENT)


def by_layer(execution: Execution, room_bytes: int, held_bytes: int | None = None) -> Execution:
    """The same with streamed layers. `room_bytes`: memory that the model and its work can have. `held_bytes`: weights beside
    which the work had too little: it gets half of their room. None: nothing was tried yet."""
    budget = int(room_bytes * _SHARE)
    if held_bytes is not None:
        budget = min(budget, held_bytes // 2)
    return msgspec.structs.replace(execution, offload=BY_LAYER, offload_budget_bytes=max(1, budget))


def usual_precision(capability: tuple[int, int] | None) -> str:
    """The fastest precision that a device computes well in. `capability`: of CUDA. None: another backend."""
    if capability is None:
        return "float32"
    # Older devices emulate bfloat16, slowly.
    return "bfloat16" if capability >= (8, 0) else "float16"


def lower_precision(execution: Execution, usual: str) -> str:
    """A precision of half the bytes for a load that does not fit. Empty: there is none. `usual`: see `usual_precision`."""
    return "bfloat16" if (execution.precision or usual) == "float32" else ""


def leaves_float16(config: Mapping[str, Any]) -> bool:
    """Whether activations of the component with this config.json leave float16's range.

    A VAE says so itself (`force_upcast`), T5's always do.
    """
    return bool(config.get("force_upcast", False)) or config.get("model_type") in ("t5", "umt5")


def precision_of(component: str, execution: Execution, usual: str, *, upcast: bool) -> str:
    """The precision in which a component is loaded. `usual`: see `usual_precision`.

    `upcast`: see `leaves_float16`.
    """
    if asked := execution.asked_of(component):
        return asked
    precision = execution.precision or usual
    return "float32" if upcast and precision == "float16" else precision

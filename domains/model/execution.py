"""How a model computes: what a load asks for, and what that means for each component."""

from collections.abc import Mapping
from typing import Any

import msgspec

PRECISIONS = ("float32", "bfloat16", "float16")
"""Precisions in which the engine computes, in torch's words."""

BY_COMPONENT = "component"
"""Offloading: only the components that compute are on the device."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What a load asks for. An empty text is the server's choice."""

    precision: str = ""
    """Precision of the denoiser, in torch's words."""
    text_encoder_precision: str = ""
    """Precision of the text encoders. Empty: the denoiser's."""
    vae_precision: str = ""
    """Precision of the VAE. Empty: the denoiser's, or a wider one for a VAE that overflows in float16."""
    offload: str = ""
    """Which parts wait in host memory: `none`, or `component` for all that do not compute. Empty: none."""

    @property
    def in_turns(self) -> bool:
        """Whether the components take turns on the device."""
        return self.offload == BY_COMPONENT

    def asked_of(self, component: str) -> str:
        """The precision that is asked for a component. Empty: none."""
        if component == "vae":
            return self.vae_precision
        return (component.startswith("text_encoder") and self.text_encoder_precision) or self.precision

    @property
    def named(self) -> tuple[str, ...]:
        """All precisions that it names, each once."""
        every = (self.precision, self.text_encoder_precision, self.vae_precision)
        return tuple(dict.fromkeys(filter(None, every)))


AS_USUAL = Execution()
"""The server's choice in everything."""

AS_FLOAT32 = Execution(precision="float32")
"""The same in full precision."""


def in_turns(execution: Execution) -> Execution:
    """The same with components that take turns on the device."""
    return msgspec.structs.replace(execution, offload=BY_COMPONENT)


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

"""The three operations that dominate diffusion models, with inputs from a fixed seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor

from domains.device.on_device.torch_errors import lacking

PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_SEED = 20


@dataclass(frozen=True)
class Operation:
    """One operation on inputs of fixed shapes."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    compute: Callable[..., Tensor]
    flop: int
    """Number of additions and multiplications."""
    workload: str
    """Shapes, for people."""

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Normally distributed tensors in host memory, always the same."""
        generator = torch.Generator().manual_seed(_SEED)
        return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in self.shapes)


def matmul(side: int) -> Operation:
    """Product of two square matrices."""
    shapes = ((side, side), (side, side))
    return Operation("matmul", shapes, torch.matmul, 2 * side**3, f"{side}x{side}x{side}")


def conv2d(batch: int, channels: int, side: int) -> Operation:
    """3x3 convolution that keeps width, height and channels."""
    shapes = ((batch, channels, side, side), (channels, channels, 3, 3))
    flop = 2 * 9 * batch * channels**2 * side**2
    return Operation("conv2d", shapes, _conv2d, flop, f"{batch}x{channels}x{side}x{side} 3x3")


def attention(batch: int, heads: int, tokens: int, width: int) -> Operation:
    """Softmax attention."""
    shape = (batch, heads, tokens, width)
    flop = 4 * batch * heads * tokens**2 * width
    name = "scaled_dot_product_attention"
    return Operation(name, (shape,) * 3, F.scaled_dot_product_attention, flop, "x".join(map(str, shape)))


def _conv2d(pixels: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(pixels, weight, padding=1)


def can(device: torch.device, operation: Operation, precision: str) -> bool:
    """Whether the device supports this operation in this precision, by trial. Raises if float32 fails."""
    dtype = PRECISIONS[precision]
    try:
        operation.compute(*(one.to(device) for one in operation.inputs(dtype)))
    except (RuntimeError, NotImplementedError) as error:
        if precision == "float32" or not lacking(error):
            raise
        return False
    return True

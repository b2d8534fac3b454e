"""The difference that an adapter makes to the weight of one layer, as the small matrices that it is stored as.

LoRA (Hu et al. 2021), LoCon, LoHa and LoKr (LyCORIS, Yeh et al. 2023), DoRA (Liu et al. 2024). Only the product with a
layer's input is computed; a difference of LoHa or LoKr is made for it each time, which takes far fewer operations than the
layer itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor, nn

from domains.inference.on_device.to_device import to_device
from domains.model.on_device import weight_dtype


class Factors(Protocol):
    """A difference of a weight."""

    def scaled(self, scale: float, device: torch.device, dtype: torch.dtype) -> "Factors":
        """The same times a number, on a device."""
        ...

    def product(self, layer: nn.Module, x: Tensor) -> Tensor:
        """The difference applied to a layer's input: what is added to its output."""
        ...

    def weight(self) -> Tensor:
        """The difference as a matrix (out, in), or (out, in, height, width) of a convolution."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """The tensors that it holds."""
        ...


@dataclass(frozen=True, eq=False)
class LowRank:
    """up · down. See `Factors`."""

    down: Tensor
    """(rank, in), or (rank, in, height, width) of a convolution."""
    up: Tensor
    """(out, rank)."""

    def scaled(self, scale: float, device: torch.device, dtype: torch.dtype) -> "LowRank":
        up = self.up if scale == 1 else self.up.float() * scale
        return LowRank(to_device(self.down, device).to(dtype), to_device(up, device).to(dtype))

    def product(self, layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, nn.Conv2d) and x.dim() == 4:
            return F.conv2d(_convolved(layer, x, self.down), self.up[:, :, None, None])
        return F.linear(F.linear(x, self.down.flatten(1)), self.up)

    def weight(self) -> Tensor:
        return (self.up @ self.down.flatten(1)).view(-1, *self.down.shape[1:])

    def tensors(self) -> Sequence[Tensor]:
        return (self.down, self.up)


@dataclass(frozen=True, eq=False)
class _Whole:
    """A difference that is made before it is applied."""

    factors: Sequence[Sequence[Tensor]]
    """Two matrices, each as the tensors whose product it is."""
    shape: torch.Size
    """Of the layer's weight."""
    dtype: torch.dtype = torch.float32
    """Of the product."""
    scale: float = 1.0

    def product(self, layer: nn.Module, x: Tensor) -> Tensor:
        weight = self.weight().to(self.dtype)
        if isinstance(layer, nn.Conv2d) and x.dim() == 4:
            return _convolved(layer, x, weight)
        return F.linear(x, weight.flatten(1))

    def weight(self) -> Tensor:
        raise NotImplementedError

    def tensors(self) -> Sequence[Tensor]:
        return [tensor for one in self.factors for tensor in one]

    def _placed(self, scale: float, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        # Products of small numbers: float16 would lose them.
        factors = [[to_device(tensor, device).float() for tensor in one] for one in self.factors]
        return {"factors": factors, "shape": self.shape, "dtype": dtype, "scale": self.scale * scale}


@dataclass(frozen=True, eq=False)
class Hadamard(_Whole):
    """LoHa: the element-wise product of both. See `Factors`."""

    def scaled(self, scale: float, device: torch.device, dtype: torch.dtype) -> "Hadamard":
        return Hadamard(**self._placed(scale, device, dtype))

    def weight(self) -> Tensor:
        first, second = (_matrix(one) for one in self.factors)
        return (first * second).mul_(self.scale).view(self.shape)


@dataclass(frozen=True, eq=False)
class Kronecker(_Whole):
    """LoKr: the Kronecker product of both. See `Factors`."""

    rows: tuple[int, int] | None = None
    """The rows of the product that are the layer's: other formats have one matrix for query, key and value. None: all."""

    def scaled(self, scale: float, device: torch.device, dtype: torch.dtype) -> "Kronecker":
        return Kronecker(**self._placed(scale, device, dtype), rows=self.rows)

    def weight(self) -> Tensor:
        first, second = (_matrix(one) for one in self.factors)
        first = first[(...,) + (None,) * (second.dim() - 2)]
        if self.rows is None:
            return torch.kron(first, second.contiguous()).mul_(self.scale).view(self.shape)
        begin, end = self.rows
        block = len(second)
        skipped = begin // block
        product = torch.kron(first[skipped : -(-end // block)], second.contiguous())
        return product[begin - skipped * block : end - skipped * block].mul(self.scale).view(self.shape)


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """DoRA: the layer's weight with the difference, scaled so that each row has a length of its own. See `Factors`."""

    factors: Factors
    gains: Tensor
    """(out,): the target length of each row, divided by its length with the difference."""

    def product(self, layer: Any, x: Tensor, base: Tensor) -> Tensor:
        """What is added to the layer's own output `base` for its input."""
        gains = self.gains if base.dim() != 4 or not isinstance(layer, nn.Conv2d) else self.gains[:, None, None]
        bias = layer.bias
        if bias is not None and base.dim() == 4 and isinstance(layer, nn.Conv2d):
            bias = bias[:, None, None]
        plain = base if bias is None else base - bias
        return (gains - 1) * plain + gains * self.factors.product(layer, x)

    def tensors(self) -> Sequence[Tensor]:
        return [*self.factors.tensors(), self.gains]


def magnitudes(exact: Factors, factors: Factors, lengths: Tensor, layer: Any) -> Magnitudes:
    """`lengths`: (out,), of each row. `factors`: placed where the layer is, and scaled; `exact`: the same in float32."""
    weight = layer.weight.detach().float()
    own = torch.linalg.vector_norm((weight + exact.weight().view(weight.shape)).flatten(1), dim=1)
    return Magnitudes(factors, (to_device(lengths, own.device).float() / own).to(weight_dtype(layer)))


def joined(parts: Sequence[LowRank]) -> LowRank:
    """The sum of differences of one layer."""
    if len(parts) == 1:
        return parts[0]
    return LowRank(torch.cat([part.down for part in parts]), torch.cat([part.up for part in parts], dim=1))


def _convolved(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    padding: Any = layer.padding
    return F.conv2d(x, weight, None, layer.stride, padding, layer.dilation)


def _matrix(tensors: Sequence[Tensor]) -> Tensor:
    """The product of tensors: one alone; (out, rank), (rank, in); or these and a core (rank, rank, height, width)."""
    match tensors:
        case [whole]:
            return whole
        case [left, right]:
            return left @ right.flatten(1) if right.dim() == 2 else (left @ right.flatten(1)).view(-1, *right.shape[1:])
        case _:
            left, right, core = tensors
            return torch.einsum("ijkl,jr,ip->prkl", core, right, left)

"""A family whose attention is computed by a chosen kernel of torch's, or in slices.

The denoiser computes with the kernel, or not at all. A text encoder or a VAE whose shapes the kernel does not take (heads
that are too wide, a mask) computes that attention with `math`, which a run then tells.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from domains.errors import NotSupported
from domains.inference.on_device.families.around import Around, Part, Result
from domains.inference.on_device.families.family import Family, KeepOn, regardless
from domains.model.families import FAMILIES
from domains.model.model import Model
from domains.model.ways import Ways

_KERNELS: Mapping[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
_NO_KERNEL = ("No available kernel", "No viable backend for scaled_dot_product_attention")
"""What torch says of attention that none of the permitted kernels takes."""
_ATTENTION = F.scaled_dot_product_attention
_PARTS = {Part.TEXTS: "the text encoders", Part.VAE: "the VAE", Part.CONTROLS: "a network that guides"}
"""Parts that may compute with `math` instead, for people."""

SLICE_SCORES = 2**24
"""Most scores of a slice: 32 MiB in half precision. A slice has at least one query."""


def attending(model: Model, family: Family, ways: Ways) -> Family:
    """The family, with its attention as `ways` say."""
    if not ways.attention_kernel and not ways.attention_slicing:
        return family
    return Attending(model, family, ways)


def parts_in_math(family: Family) -> Collection[str]:
    """The parts whose attention the chosen kernel did not take so far, for people."""
    return family.parts_in_math if isinstance(family, Attending) else ()


class Attending(Around):
    """See `Family`."""

    def __init__(self, model: Model, family: Family, ways: Ways) -> None:
        self._model = model
        self._family = family
        self._ways = ways
        self.parts_in_math: set[str] = set()
        """See the function of this name."""

    def __getattr__(self, name: str) -> Any:
        """What a family has beside the methods of `Family`."""
        return getattr(self._family, name)

    def _around(self, part: Part, call: Callable[[Family], Result], keep_on: KeepOn = regardless) -> Result:
        """Raises NOT_SUPPORTED_ON_DEVICE if the kernel does not take the denoiser's shapes."""
        if part is Part.NONE:
            return call(self._family)
        named = _PARTS.get(part, "")
        try:
            with self._attention(keep_on, also_math=named in self.parts_in_math):
                return call(self._family)
        except RuntimeError as error:
            if not any(text in str(error) for text in _NO_KERNEL):
                raise
        # The error's functions are gone here, and with them what they computed.
        if not named:
            raise _no_kernel(self._model, self._ways.attention_kernel)
        self.parts_in_math.add(named)
        with self._attention(keep_on, also_math=True):
            return call(self._family)

    @contextmanager
    def _attention(self, keep_on: KeepOn, *, also_math: bool) -> Generator[None]:
        with ExitStack() as stack:
            if kernel := self._ways.attention_kernel:
                permitted = [_KERNELS[kernel], *([SDPBackend.MATH] if also_math else [])]
                stack.enter_context(sdpa_kernel(permitted, set_priority=True))
            if self._ways.attention_slicing:
                stack.enter_context(_Slicing(keep_on))
            yield


class _Slicing(TorchFunctionMode):
    """Computes each attention in slices of its queries, with a look before each."""

    def __init__(self, keep_on: KeepOn) -> None:
        super().__init__()
        self._keep_on = keep_on

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        if func is _ATTENTION:
            return _in_slices(self._keep_on, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _in_slices(
    keep_on: KeepOn,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *others: Any,
    **named: Any,
) -> Tensor:
    """`scaled_dot_product_attention` of (…, queries, head width)."""
    queries = query.shape[-2]
    scores_of_one = query[..., 0].numel() // max(1, queries) * key.shape[-2]
    size = max(1, SLICE_SCORES // max(1, scores_of_one))
    # Which keys a causal query sees depends on its place. Only text encoders have such attention, and few tokens.
    if size >= queries or named.get("is_causal") or any(others[1:2]):
        return F.scaled_dot_product_attention(query, key, value, attn_mask, *others, **named)
    found = query.new_empty(*query.shape[:-1], value.shape[-1])
    for begin in range(0, queries, size):
        keep_on()
        end = min(begin + size, queries)
        mask = attn_mask if attn_mask is None or attn_mask.shape[-2] == 1 else attn_mask[..., begin:end, :]
        part = F.scaled_dot_product_attention(query[..., begin:end, :], key, value, mask, *others, **named)
        found[..., begin:end, :] = part
    return found


def _no_kernel(model: Model, kernel: str) -> NotSupported:
    denoiser = FAMILIES[model.family].denoiser.id
    message = (
        f"the {denoiser} of model {model.id} has attention that {kernel} does not take here, by its mask, its head width or "
        "its precision; load it with another execution.attention_kernel (math takes all), or in another execution.precision"
    )
    return NotSupported(message, model_id=model.id, component=denoiser, attention_kernel=kernel)

"""A family whose attention is computed by a chosen kernel of torch's, or in slices.

The denoiser computes with the kernel, or not at all. A text encoder or a VAE whose shapes the kernel does not take (heads
that are too wide, a mask) computes that attention with `math`, which a run then tells.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from domains.errors import NotSupported
from domains.inference.on_device.families.family import (
    Conditions,
    EncodedPrompt,
    Family,
    KeepOn,
    PictureLatents,
    SizePx,
    StepRows,
    regardless,
)
from domains.inference.prompts import Prompt
from domains.model.families import FAMILIES
from domains.model.model import Model
from domains.model.ways import Ways

Result = TypeVar("Result")
_KERNELS: Mapping[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
_NO_KERNEL = ("No available kernel", "No viable backend for scaled_dot_product_attention")
"""What torch says of attention that none of the permitted kernels takes."""
_ATTENTION = F.scaled_dot_product_attention
_TEXTS = "the text encoders"
_VAE = "the VAE"
_CONTROLS = "a network that guides"

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


class Attending:
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

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """See `Family`."""
        return self._computed(_TEXTS, lambda: self._family.encode(prompt))

    def conditions(
        self,
        positive: EncodedPrompt,
        negative: EncodedPrompt | None,
        guidance: float,
        size_px: SizePx,
        **told: Any,
    ) -> Conditions:
        """See `Family`."""
        return self._computed("", lambda: self._family.conditions(positive, negative, guidance, size_px, **told))

    def conditions_for(self, network: Any, *prompts: Any, **told: Any) -> Any:
        """What another network reads of prompts."""
        return self._computed(_CONTROLS, lambda: cast(Any, self._family).conditions_for(network, *prompts, **told))

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        """See `Family`."""
        return self._family.latent_shape(width_px, height_px)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        """See `Family`. Raises NOT_SUPPORTED_ON_DEVICE if the kernel does not take the denoiser's shapes."""
        return self._computed("", lambda: self._family.denoise(group, keep_on), keep_on)

    def shared_bytes(self) -> int:
        """See `Family`."""
        return self._family.shared_bytes()

    def decode(self, latents: Tensor, keep_on: KeepOn = regardless, tile: int | None = None) -> tuple[Tensor, Tensor]:
        """See `Family`."""
        return self._computed(_VAE, lambda: self._family.decode(latents, keep_on, tile), keep_on)

    def decode_in_float32(self, latents: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor] | None:
        """See `Family`."""
        return self._computed(_VAE, lambda: self._family.decode_in_float32(latents, tile))

    def encode_reference(self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None) -> Tensor:
        """See `Family`."""
        return self._computed(_VAE, lambda: self._family.encode_reference(pixels, keep_on, hidden), keep_on)

    def encode_picture(
        self, pixels: Tensor, keep_on: KeepOn = regardless, hidden: Tensor | None = None
    ) -> PictureLatents:
        """See `Family`."""
        return self._computed(_VAE, lambda: self._family.encode_picture(pixels, keep_on, hidden), keep_on)

    def inpaint_channels(self, seen: Tensor, hidden: Tensor, cells: Tensor) -> Tensor:
        """See `Family`."""
        return self._family.inpaint_channels(seen, hidden, cells)

    def prepare_previews(self) -> None:
        """See `Family`."""
        self._computed(_VAE, self._family.prepare_previews)

    def preview(self, x0: Tensor, size: tuple[int, int]) -> Tensor:
        """See `Family`."""
        return self._computed(_VAE, lambda: self._family.preview(x0, size))

    def _computed(self, part: str, compute: Callable[[], Result], keep_on: KeepOn = regardless) -> Result:
        """The result of a function whose attention is that of a part. Empty: the denoiser."""
        try:
            with self._attention(keep_on, also_math=part in self.parts_in_math):
                return compute()
        except RuntimeError as error:
            if not any(text in str(error) for text in _NO_KERNEL):
                raise
        # The error's functions are gone here, and with them what they computed.
        if not part:
            raise _no_kernel(self._model, self._ways.attention_kernel)
        self.parts_in_math.add(part)
        with self._attention(keep_on, also_math=True):
            return compute()

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

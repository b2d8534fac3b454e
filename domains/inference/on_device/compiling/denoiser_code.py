"""The code of one loaded model's denoiser: which blocks have it, for which shapes, and why not."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import structlog
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from domains.errors import ErrorReason, excerpt
from domains.inference.on_device.compiling.inductor import Made, compiled, rows_vary
from domains.inference.on_device.compiling.making import await_others, begin_code, first_call
from domains.inference.on_device.compiling.twins import kind_of, twin_of
from domains.inference.on_device.families.family import Abandoned, CodeMissing
from domains.inference.on_device.networks.block_code import Compute, with_code
from domains.inference.on_device.networks.transformer import block_outputs

MOST_SHAPES = 64
"""Shapes of inputs, of all kinds of blocks, whose code is kept: those that were used last."""
Why = tuple[ErrorReason, str]
"""Why steps compute without code; the text is for people."""
_log = structlog.get_logger()


class Wanted(NamedTuple):
    """What a block is to compute."""

    kind: int
    """Of the block, see `DenoiserCode.number_of`."""
    make: Callable[[], Compute]
    """Makes the function to compile, of weights and inputs."""
    weights: Sequence[Tensor | None]
    inputs: Sequence[Any]
    rows: int
    """Of the inputs that have rows."""
    usual: Callable[[], Any]
    """Computes it where there is no code."""


class DenoiserCode:
    """Used from the thread that ticks."""

    def __init__(self, denoiser: nn.Module) -> None:
        self._kinds: dict[Hashable, int] = {}
        self._code: OrderedDict[Hashable, Compute] = OrderedDict()
        """By kind of block and shapes."""
        self._refused: dict[Hashable, Why] = {}
        """Why there is no code for a kind and shapes."""
        self.reasons: set[Why] = set()
        """Why blocks have computed without code, since the set was emptied."""
        self._called = dict[nn.Module, Compute]()
        self._read = dict[nn.Module, Compute]()
        if isinstance(denoiser, UNet2DConditionModel):
            blocks: list[nn.Module] = [one for one in denoiser.modules() if isinstance(one, BasicTransformerBlock)]
            self._read = {block: partial(self._of_weights, self.number_of(block)) for block in blocks}
        else:
            lists = [one for one in denoiser.children() if isinstance(one, nn.ModuleList)]
            self._called = {block: _Called(self, block).compute for some in lists for block in some}

    @contextmanager
    def computing(self) -> Generator[None]:
        """Compute forwards within the context with code. They raise CodeMissing, see `code_permitted`."""
        with with_code(self._read, self._called):
            yield

    def run(self, wanted: Wanted) -> Any:
        """What a block computes, by the code of its kind where there is some. Raises CodeMissing, see `code_permitted`."""
        key = wanted.kind, wanted.rows == 1, _described(wanted.inputs, wanted.rows)
        if key in self._refused:
            self.reasons.add(self._refused[key])
            return wanted.usual()
        function = self._code.get(key)
        if function is None:
            return self._first(key, wanted)
        self._code.move_to_end(key)
        await_others()
        return function(wanted.weights, *wanted.inputs)

    def _first(self, key: Hashable, wanted: Wanted) -> Any:
        begin_code()
        made = Made()
        try:
            function = compiled(wanted.make(), made)
            if wanted.rows > 1:
                _let_rows_vary(wanted.inputs, wanted.rows)
            result = first_call(function, [wanted.weights, *wanted.inputs])
        except Exception as error:
            # What the code itself raises, a device out of memory for one, is the caller's.
            if made.done or not _of_compiler(error):
                raise
            told = excerpt(" ".join(str(error).split()))
            _log.warning("a block could not be compiled", error=type(error).__name__, message=told)
            why = f"one of its layers cannot be compiled ({type(error).__name__}: {told})"
            self._refused[key] = ErrorReason.NOT_SUPPORTED_ON_DEVICE, why
        else:
            self._code[key] = function
            if len(self._code) > MOST_SHAPES:
                self._code.popitem(last=False)
            return result
        # The error's functions are gone here, and with them what they computed.
        self.reasons.add(self._refused[key])
        return wanted.usual()

    def number_of(self, block: nn.Module) -> int:
        """A short name of a block's kind, which is quick to compare."""
        return self._kinds.setdefault(kind_of(block), len(self._kinds))

    def _of_weights(
        self,
        kind: int,
        weights: Sequence[Tensor | None],
        settings: tuple[Any, ...],
        *states: Tensor,
        usual: Callable[[], Any],
    ) -> Any:
        """What a block of a U-Net computes, see `networks.transformer`."""

        def make() -> Compute:
            def compute(weights: Sequence[Tensor | None], *states: Tensor) -> Tensor:
                return block_outputs(weights, settings, *states)

            return compute

        return self.run(Wanted(kind, make, weights, states, states[0].shape[0], usual))


class _Called:
    """A block that is called as a module."""

    def __init__(self, code: DenoiserCode, block: nn.Module) -> None:
        self._code = code
        self._block = block
        self._kind: int | None = None
        self._names: list[str] = []
        self._places: list[tuple[dict[str, Tensor | None], str]] = []
        """Where the block's tensors lie: they are others after it was offloaded."""

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """What the block's own forward returns."""
        if self._kind is None:
            self._kind = self._code.number_of(self._block)
            self._names, self._places = _tensors_of(self._block)
        usual = partial(type(self._block).forward, self._block, *args, **kwargs)
        weights = [cast(Tensor, table[name]) for table, name in self._places]
        first = next(iter([*args, *kwargs.values()]))
        return self._code.run(Wanted(self._kind, self._make, weights, (args, kwargs), len(first), usual))

    def _make(self) -> Compute:
        twin, names = twin_of(self._block), tuple(self._names)

        def compute(weights: Sequence[Tensor | None], args: Any, kwargs: Any) -> Any:
            tensors = cast(dict[str, Tensor], dict(zip(names, weights, strict=True)))
            return torch.func.functional_call(twin, tensors, args, kwargs)

        return compute


def _tensors_of(block: nn.Module) -> tuple[list[str], list[tuple[dict[str, Tensor | None], str]]]:
    """The full names of a block's tensors, and the tables in which they lie."""
    names: list[str] = []
    places: list[tuple[dict[str, Tensor | None], str]] = []
    for path, module in block.named_modules():
        for table in (module._parameters, module._buffers):  # pyright: ignore[reportPrivateUsage]
            for name in (name for name, tensor in table.items() if tensor is not None):
                names.append(f"{path}.{name}" if path else name)
                places.append((cast(dict[str, Tensor | None], table), name))
    return names, places


def _described(value: Any, rows: int) -> Hashable:
    """What must be equal in inputs to share code: all but the number of rows. Raises TypeError for other values than
    tensors, plain ones and collections of them."""
    if isinstance(value, Tensor):
        shape = value.shape
        first = -1 if value.dim() and shape[0] == rows else shape[:1]
        return first, tuple(shape[1:]), value.stride()[1:], value.dtype, value.device
    if isinstance(value, Mapping):
        some = cast(Mapping[str, Any], value)
        return tuple((name, _described(one, rows)) for name, one in some.items())
    if isinstance(value, tuple | list):
        return tuple(_described(one, rows) for one in cast(Sequence[Any], value))
    return value


def _let_rows_vary(value: Any, rows: int) -> None:
    if isinstance(value, Tensor):
        if value.dim() and value.shape[0] == rows:
            rows_vary(value)
    elif isinstance(value, Mapping):
        for one in cast(Mapping[str, Any], value).values():
            _let_rows_vary(one, rows)
    elif isinstance(value, tuple | list):
        for one in cast(Sequence[Any], value):
            _let_rows_vary(one, rows)


def _of_compiler(error: Exception) -> bool:
    """Whether code could not be made, for a reason that holds for the shape. Requests to stop are none."""
    return not isinstance(error, Abandoned | CodeMissing | MemoryError | torch.OutOfMemoryError)

"""Keeps models that left a CUDA device in host memory: their registered maps, and everything but the weights.

A model that comes back costs one copy over the bus: nothing is read, parsed, built or registered again.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from domains.device.cgroup import host_memory
from domains.model.on_device.file_map import CudaDriver, Driver, FileMap
from domains.model.on_device.flat import Slots
from domains.model.on_device.tokenizer import Words
from domains.model.weight_file import WeightFile

_SKELETONS = 16
"""Most models whose empty modules are kept; each takes a few MB and its open files."""
_SHARE = 4
"""The maps pin at most a quarter of the host's memory."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A model without its weights."""

    words: Mapping[str, Words]
    """The tokenizers, by the component id of their text encoder."""
    modules: Mapping[str, nn.Module]
    """Its own modules by component, on `meta`; components that it shares with another model are not here."""
    slots: Mapping[str, Slots]
    """What fills them."""
    files: Sequence[WeightFile]
    """Open."""
    bytes_of: dict[str, int] = field(default_factory=dict[str, int])
    """Measured sizes of the modules with their weights, by component; of one that was never filled, none."""

    @property
    def unchanged(self) -> bool:
        """Whether the files are as they were when they were opened."""
        return all(file.unchanged for file in self.files)

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


def quarter_of_host() -> int:
    """The default budget, in bytes."""
    return host_memory().total_bytes // _SHARE


class HostTier:
    """Used from the thread that loads; the maps' pieces are registered by others."""

    def __init__(self, budget_bytes: Callable[[], int] = quarter_of_host, driver: Driver | None = None) -> None:
        """`budget_bytes`: most bytes that idle maps may pin."""
        self._budget_bytes = budget_bytes
        self._driver = driver or CudaDriver()
        self._maps: OrderedDict[Hashable, FileMap] = OrderedDict()
        """By the file's state; the one used last comes last."""
        self._borrowed: list[Hashable] = []
        self._skeletons: OrderedDict[Hashable, Skeleton] = OrderedDict()

    @property
    def pinned_bytes(self) -> int:
        """Bytes of host memory that the maps pin."""
        return sum(one.pinned_bytes for one in self._maps.values())

    def borrow(self, file: WeightFile) -> FileMap:
        """The map of a file, with the pieces that were registered before. Give it back when all copies are over."""
        if file.state not in self._maps:
            self._maps[file.state] = FileMap(file.descriptor, file.size_bytes, self._driver)
        self._maps.move_to_end(file.state)
        self._borrowed.append(file.state)
        return self._maps[file.state]

    def give_back(self, file: WeightFile) -> None:
        """Keep a map for later, as far as the budget allows; the one used longest ago goes first."""
        self._borrowed.remove(file.state)
        self._trim(self._budget_bytes())

    def take(self, key: Hashable, needed: Collection[str]) -> Skeleton | None:
        """A model's skeleton, which leaves the tier. None: it is not here, its files have changed, or it lacks one of the
        needed components (ids): it shared them with a model that has left, too."""
        skeleton = self._skeletons.pop(key, None)
        if skeleton is None:
            return None
        if skeleton.unchanged and skeleton.modules.keys() >= set(needed):
            return skeleton
        skeleton.close()
        return None

    def keep(self, key: Hashable, skeleton: Skeleton, used: Collection[nn.Module]) -> None:
        """Keep a model that leaves the device, without its weights. `used`: modules that other models still have."""
        if any(module in used for module in skeleton.modules.values()):
            skeleton.close()
            return
        for module in skeleton.modules.values():
            module.to("meta")
        if (older := self._skeletons.pop(key, None)) is not None:
            older.close()
        self._skeletons[key] = skeleton
        while len(self._skeletons) > _SKELETONS:
            self._skeletons.popitem(last=False)[1].close()

    def clear(self) -> None:
        """Give all memory back that no load uses."""
        self._trim(0)
        while self._skeletons:
            self._skeletons.popitem()[1].close()

    def _trim(self, budget_bytes: int) -> None:
        for state in [state for state in self._maps if state not in self._borrowed]:
            if self.pinned_bytes <= budget_bytes and budget_bytes:
                return
            self._maps.pop(state).close()

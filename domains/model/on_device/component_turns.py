"""Components that take turns on a device, for models larger than its memory: those that do not compute wait in their files.

On CUDA the files are registered maps of the host tier, so a component comes back in one copy over the bus.

A denoiser or text encoder larger than the device itself keeps some of its layers there in its turn, and streams the others
(`LayerStream`).
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence, Set
from typing import NamedTuple

import torch

from domains.model.layers import LayerPlan, LayerSizes, layer_of, layer_plan, layer_plans, layer_sizes
from domains.model.on_device.flat import Slot, Slots
from domains.model.on_device.host_tier import HostTier, Skeleton
from domains.model.on_device.layer_stream import LayerStream
from domains.model.on_device.reading import NOW, Read, Ready, followed
from domains.model.on_device.weights import Filling


class Visit(NamedTuple):
    """How far the components have come in their first turns."""

    completed: int
    """Bytes of the weight files that were placed."""
    total: int
    ready: Ready
    here: Mapping[str, int]
    """Bytes on the device now, by component."""


class ComponentTurns:
    """The components of one model. Used from the thread that ticks."""

    def __init__(
        self,
        skeleton: Skeleton,
        place: torch.device,
        tier: HostTier | None,
        streamed: Collection[str] = (),
        budget_bytes: int = 0,
    ) -> None:
        """Takes over the skeleton, whose modules are on `meta`. `tier` None: nothing outlives the model.

        `streamed`: components that have at most `budget_bytes` on the device in their turn, if their layers allow that.
        """
        self._skeleton = skeleton
        self._place = place
        self._tier = tier
        self.keep_on: Callable[[], None] = lambda: None
        """Called while a component or a layer comes back, which takes as long as its disk. What it raises ends that."""
        self._here: set[str] = set()
        sizes = {one: self._sizes(one) for one in streamed}
        self._plans = {one: plan for one, plan in layer_plans(sizes, budget_bytes).items() if plan.streamed}
        self._parts: dict[str, _Parts] = {}
        """Of components with streamed layers, from their first turn on."""
        self._streams: dict[str, LayerStream] = {}
        """Of components with streamed layers, in their turn."""

    @property
    def here(self) -> Set[str]:
        """Ids of the components that are on the device."""
        return self._here

    def size_of(self, component: str) -> int:
        """Bytes that a component has on the device in its turn."""
        plan = self._plans.get(component)
        return self.whole_bytes(component) if plan is None else plan.total_bytes

    def could_hold_less(self, component: str) -> bool:
        """Whether a component would have fewer bytes on the device with a smaller budget."""
        return layer_plan(self._sizes(component), 0).total_bytes < self.size_of(component)

    def _sizes(self, component: str) -> LayerSizes:
        """Bytes of its layers on the device."""
        return layer_sizes({slot.name: slot.placed_bytes for slot in self._skeleton.slots[component]}, component)

    def whole_bytes(self, component: str) -> int:
        """Bytes of all weights of a component, in its precision."""
        return sum(slot.placed_bytes for slot in self._skeleton.slots[component])

    def missing(self, components: Collection[str]) -> list[str]:
        """Those of the components that are not on the device."""
        return [one for one in components if one not in self._here]

    def visits(self) -> Generator[Visit]:
        """Give each component its first turn, which proves that it has room and that its file can be read; at the end none
        is on the device. Yields after each piece. Raises as `bring`."""
        total = sum(file.size_bytes for file in self._skeleton.files)
        done = 0
        yield Visit(0, total, NOW, {})
        for component in self._skeleton.modules:
            here = {component: self.size_of(component)}
            with Filling(self._place, self._tier) as filling:
                for read in self._fill(filling, component):
                    done += read.size
                    yield Visit(min(done, total), total, read.ready, here)
                yield Visit(min(done, total), total, filling.ended(), here)
            self._check_unchanged()
            self.leave()
        # Headers and tensors that nothing uses count too.
        yield Visit(total, total, NOW, {})

    def leave(self, but: Collection[str] = ()) -> None:
        """Take components off the device, all but these."""
        # Parameters that are made in inference mode could never be changed outside of it.
        with torch.inference_mode(mode=False):
            for component in sorted(self._here - {*but}):
                if (stream := self._streams.pop(component, None)) is not None:
                    stream.close()
                self._skeleton.modules[component].to("meta")
                self._here.discard(component)

    def bring_layer(self, component: str, path: str) -> None:
        """Have one layer's weights on the device (by its path in the component), and its component. Raises as `bring`."""
        self.bring([component])
        if (stream := self._streams.get(component)) is not None:
            stream.bring(path)

    def bring(self, components: Collection[str]) -> None:
        """Have these components on the device, and no others. Waits for the copies. Streamed layers come when they compute.

        Raises ILLEGAL_STATE (a file that has changed since the load), MODEL_CORRUPT, torch's errors of its allocator, and
        what `keep_on` raises; no component is on the device then.
        """
        missing = self.missing(components)
        self.leave(components)
        if not missing:
            return
        try:
            self._fill_all(missing)
            self._check_unchanged()
        except BaseException:
            self.leave()
            raise

    def _fill_all(self, components: Collection[str]) -> None:
        with torch.inference_mode(mode=False), torch.no_grad(), Filling(self._place, self._tier) as filling:
            for component in components:
                followed(self._fill(filling, component, all_layers=False), self.keep_on)
            ended = filling.ended()
            while not ended.passed():
                ended.wait()

    def _fill(self, filling: Filling, component: str, *, all_layers: bool = True) -> Generator[Read]:
        """`all_layers`: whether streamed layers come once, too."""
        self._here.add(component)
        module, slots = self._skeleton.modules[component], self._skeleton.slots[component]
        if (plan := self._plans.get(component)) is None:
            yield from filling.fill(module, slots)
            return
        if component not in self._parts:
            self._parts[component] = _apart(slots, plan, component)
        parts = self._parts[component]
        yield from filling.fill(module, parts.stay)
        stream = self._streams[component] = LayerStream(
            module, parts.layers, self._place, self._tier, component=component, keep_on=lambda: self.keep_on()
        )
        if all_layers:
            yield from stream.visits()

    def _check_unchanged(self) -> None:
        for file in self._skeleton.files:
            file.check_unchanged()

    def close(self) -> None:
        """Take all components off the device; close the files, unless the host tier keeps them."""
        self.leave()
        if self._tier is None:
            self._skeleton.close()


class _Parts(NamedTuple):
    """The slots of a component with streamed layers."""

    stay: Slots
    layers: Sequence[Slots]
    """In the order in which they compute."""


def _apart(slots: Slots, plan: LayerPlan, component: str) -> _Parts:
    layers = {layer: list[Slot]() for layer in plan.streamed}
    stay = list[Slot]()
    for slot in slots:
        layers.get(layer_of(slot.name, component) or (), stay).append(slot)
    return _Parts(Slots(stay), [Slots(layer) for layer in layers.values()])

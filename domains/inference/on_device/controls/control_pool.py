"""Keeps the ControlNets that jobs of one device use: each once, for as long as a job uses it."""

import time
from collections.abc import Generator

import torch
from torch import nn

from domains.inference.on_device.controls.control_net import ControlNet, check_fits
from domains.inference.on_device.hardware import Hardware, model_owner
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, Ready, loading_controlnet

_TURN_S = 0.01
"""Seconds that a load may use the computing thread before other jobs have their turn."""


class ControlLoad:
    """A ControlNet on its way to the device, then ready. All jobs that need it share one object."""

    def __init__(self, model: Model, base: OnDeviceModel) -> None:
        self.model = model
        self.users: set[str] = set()
        """Jobs that need it."""
        self.net: ControlNet | None = None
        """None: it is not there yet."""
        self.failure: Exception | None = None
        """Why the load has ended. None: it has not failed."""
        self.size_bytes = 0
        self._module: nn.Module | None = None
        unet = base.modules["unet"]
        self._reads_sizes = getattr(unet.config, "addition_embed_type", None) == "text_time"
        self._steps: Generator[Ready, None, nn.Module] = loading_controlnet(
            model, base, lambda module: check_fits(module, unet, base.model.id, model.id)
        )
        self._ready: Ready | None = None

    @property
    def ready(self) -> bool:
        """Whether `advance` has something to do."""
        return self.net is not None or self.failure is not None or self._ready is None or self._ready.passed()

    def wait(self) -> None:
        """Wait until the next piece can be loaded, or at least for a while."""
        if self._ready is not None:
            self._ready.wait()

    def advance(self) -> bool:
        """Load what is ready, but not for longer than a turn. Returns whether the network is there. Raises as
        `loading_controlnet`, for every job that asks."""
        if self.failure is not None:
            raise self.failure
        try:
            self._advance(time.perf_counter() + _TURN_S)
        except Exception as error:
            self.failure = error
            raise
        return self.net is not None

    def _advance(self, until_s: float) -> None:
        # Weights that are made in inference mode could never be changed outside of it.
        with torch.inference_mode(mode=False), torch.no_grad():
            while self.net is None and self.ready:
                try:
                    self._ready = next(self._steps)
                except StopIteration as end:
                    self._take(end.value)
                if time.perf_counter() >= until_s:
                    return

    def close(self) -> None:
        """Cancel the load, or drop the network."""
        self._steps.close()
        self.net = None
        if self._module is not None:
            # Modules refer to themselves, so their memory would be kept until the next garbage collection.
            self._module.to("meta")
            self._module = None

    def _take(self, module: nn.Module) -> None:
        self._module = module
        self.net = ControlNet(module, pooled_and_sizes=self._reads_sizes)
        self.size_bytes = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


class ControlPool:
    """ControlNets by content, for the models that they guide."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._loads: dict[tuple[str, torch.dtype, bool], ControlLoad] = {}

    def bring(self, job_id: str, model: Model, sha256: str, base: OnDeviceModel) -> ControlLoad:
        """The ControlNet, or its load, begun here if there is none, for a job that leaves it with `leave`."""
        key = (sha256, base.dtype, "text_encoder_2" in base.modules)
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = ControlLoad(model, base)
        load.users.add(job_id)
        return load

    def account(self, load: ControlLoad) -> None:
        """Tell the hardware how much a network holds. Raises DEVICE_OUT_OF_MEMORY."""
        self._hardware.hold(model_owner(load.model.id), load.size_bytes)

    def leave(self, job_id: str) -> None:
        """Note that a job needs no ControlNet any more. Those that no job needs leave the device."""
        for key, load in list(self._loads.items()):
            load.users.discard(job_id)
            if not load.users:
                del self._loads[key]
                load.close()
                self._hardware.free(model_owner(load.model.id))

    def drop(self, load: ControlLoad) -> None:
        """Forget a load that has failed: the next job tries again."""
        self._loads = {key: one for key, one in self._loads.items() if one is not load}
        load.close()

    def sizes(self) -> dict[str, int]:
        """Bytes of each ControlNet, by the id of its model."""
        found: dict[str, int] = {}
        for load in self._loads.values():
            found[load.model.id] = found.get(load.model.id, 0) + load.size_bytes
        return found

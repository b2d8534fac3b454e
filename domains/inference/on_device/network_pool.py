"""Keeps the networks that jobs of one device use beside their models: each once, for as long as a job uses it."""

from collections.abc import Callable, Generator, Sequence

import torch
from torch import nn

from domains.errors import FailedPrecondition
from domains.inference.on_device.hardware import Hardware, model_owner
from domains.inference.on_device.network_load import NetworkLoad
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, Ready

Begin = Callable[[Model, OnDeviceModel], Generator[Ready, None, nn.Module]]
"""Begins to load a network for a model. Raises for one that does not fit."""


class NetworkPool:
    """Networks by content, precision and the family that they work with."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._loads: dict[tuple[str, torch.dtype, str], NetworkLoad] = {}

    def bring(self, user: str, model: Model, base: OnDeviceModel, begin: Begin) -> NetworkLoad:
        """The network, or its load, begun here if there is none, for a user that leaves it with `leave`."""
        key = (model.sha256, base.dtype, base.family)
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = NetworkLoad(model, begin(model, base))
        load.users.add(user)
        return load

    def advance(self, load: NetworkLoad) -> bool:
        """Load a piece. Returns whether the network is there. Raises as its load, which the next job then begins again, and
        DEVICE_OUT_OF_MEMORY."""
        if load.module is not None:
            return True
        try:
            if not load.advance():
                return False
            self._hardware.hold(model_owner(load.model.id), load.size_bytes)
        except Exception:
            self._loads = {key: one for key, one in self._loads.items() if one is not load}
            load.close()
            raise
        return True

    def leave(self, user: str) -> None:
        """Note that a user needs no network any more. Those that none needs leave the device."""
        for key, load in list(self._loads.items()):
            load.users.discard(user)
            if not load.users:
                del self._loads[key]
                load.close()
                self._hardware.free(model_owner(load.model.id))

    def sizes(self) -> dict[str, int]:
        """Bytes of each network, by the id of its model."""
        found: dict[str, int] = {}
        for load in self._loads.values():
            found[load.model.id] = found.get(load.model.id, 0) + load.size_bytes
        return found


class Borrowed:
    """The networks of a pool that one job uses, on their way or there."""

    def __init__(self, user: str, pool: NetworkPool) -> None:
        """`user`: a name of its own in the pool."""
        self._user = user
        self._pool = pool
        self.loads: list[NetworkLoad] = []

    @property
    def ready(self) -> bool:
        """Whether `bring` has something to do."""
        return all(load.ready for load in self._on_their_way)

    def wait(self) -> bool:
        """Wait until a network can be loaded further, or at least for a while; False if none is on its way."""
        for load in self._on_their_way:
            load.wait()
            return True
        return False

    @property
    def _on_their_way(self) -> Sequence[NetworkLoad]:
        return [load for load in self.loads if load.module is None][:1]

    def bring(self, wanted: Sequence[tuple[Model, str, Begin]], base: OnDeviceModel) -> bool:
        """Load a piece of the networks, each with the hash that the request names. Returns whether all are there. Raises
        ILLEGAL_STATE for one whose files have changed, and as their loads."""
        if not self.loads:
            self.loads = [
                self._pool.bring(self._user, _unchanged(model, sha256), base, begin) for model, sha256, begin in wanted
            ]
        return all(self._pool.advance(load) for load in self.loads)

    def leave(self) -> None:
        """Give the networks back."""
        self.loads = []
        self._pool.leave(self._user)


def _unchanged(model: Model, sha256: str) -> Model:
    """The entry. Raises ILLEGAL_STATE if its files are other ones than those of the request."""
    if model.sha256 == sha256:
        return model
    message = f"the files of {model.id} have changed since the request came; send the request again"
    raise FailedPrecondition(message, model_id=model.id)

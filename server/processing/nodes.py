"""The machines whose devices this server uses: so far only its own."""

import time

from deviceops.processing.v1 import node_pb2 as pb
from domains.device.device import OWN_NODE, DeviceState
from domains.device.devices import Devices
from domains.device.record import TAKES_WORK
from domains.draining import Draining
from server import convert
from server.version import SERVER_VERSION


class OwnNode:
    """The server's own machine."""

    def __init__(self, devices: Devices, draining: Draining) -> None:
        self._devices = devices
        self._draining = draining
        self._state = pb.NODE_STATE_STARTING
        self._since_s = time.time()
        devices.listeners.append(lambda view, before: self._look())
        draining.listeners.append(self._look)

    def status(self) -> pb.NodeStatus:
        """The present status of the machine, from its devices."""
        self._look()
        return pb.NodeStatus(
            id=OWN_NODE,
            version=SERVER_VERSION,
            state=self._state,
            state_time=convert.to_time(self._since_s),
            device_ids=[view.device.id for view in self._devices.list()],
        )

    def _look(self) -> None:
        state = self._now()
        if state != self._state:
            self._state, self._since_s = state, time.time()

    def _now(self) -> pb.NodeState.ValueType:
        states = {view.state for view in self._devices.list()}
        table = (
            (self._draining.begun, pb.NODE_STATE_DRAINING),
            (bool(states & TAKES_WORK), pb.NODE_STATE_READY),
            (DeviceState.STARTING in states or self._devices.expects, pb.NODE_STATE_STARTING),
        )
        return next((state for applies, state in table if applies), pb.NODE_STATE_UNAVAILABLE)

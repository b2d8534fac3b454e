"""A server with simulated devices whose script a test may edit, and what happens there, as events."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deviceops.device.v1 import device_pb2, device_service_pb2
from deviceops.processing.v1 import processing_service_pb2, system_event_pb2
from tests.server.asking import CALL_S
from tests.server.harness import RunningServer, running_server

Event = system_event_pb2.SystemEvent
_MODULE_S = 900.0
"""One call for all tests of a module, however slow the machine is; each test has its own limit."""


class Events:
    """WatchEvents from the log's beginning: nothing is polled, nothing missed."""

    def __init__(self, server: RunningServer) -> None:
        request = processing_service_pb2.WatchEventsRequest(after_sequence=0)
        self._call = server.processing.WatchEvents(request, timeout=_MODULE_S)
        self._updates: Iterator[Any] = iter(self._call)
        next(self._updates)
        self.seen: list[Event] = []

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        """The next event that is wanted."""
        for update in self._updates:
            self.seen.append(update.event)
            if wanted(update.event):
                return update.event
        raise AssertionError("the log ended")

    def until_state(self, device_id: str, state: str) -> Event:
        """The next event after which the device is in this state."""
        number = device_pb2.DeviceState.Value(f"DEVICE_STATE_{state}")
        return self.until(lambda event: event.device.id == device_id and event.device.state == number)

    def close(self) -> None:
        """Leave the call."""
        self._call.cancel()


class Script:
    """A file of simulated devices."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *devices: str) -> bool:
        """Each device as the lines of its table; whether that is other than before."""
        text = "\n".join(f"[[device]]\n{device}\n" for device in devices)
        before = self.path.read_text() if self.path.exists() else ""
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.path)
        return text != before


def sim(number: int = 0, lines: str = "", *faults: str) -> str:
    """One device's lines in the script."""
    tables = "".join(f"\n[[device.fault]]\n{fault}\n" for fault in faults)
    return f'id = "sim-{number}"\n{lines}\n{tables}'


@contextmanager
def simulated(
    folder: Path, *devices: str, environment: dict[str, str] | None = None, flags: tuple[str, ...] = ()
) -> Generator[tuple[RunningServer, Script, Events]]:
    """A server with these devices, ready."""
    script = Script(folder / "script.toml")
    script.write(*devices)
    with running_server("--device", "sim", "--sim-script", str(script.path), *flags, environment=environment) as server:
        events = Events(server)
        present = [number for number, lines in enumerate(devices) if "present = false" not in lines]
        waiting = {f"sim-{number}" for number in present}
        ready = device_pb2.DEVICE_STATE_AVAILABLE
        while waiting:
            event = events.until(lambda event: event.device.state == ready and event.device.id in waiting)
            waiting.discard(event.device.id)
        try:
            yield server, script, events
        finally:
            events.close()


def device(server: RunningServer, device_id: str) -> device_pb2.Device:
    """GetDevice."""
    request = device_service_pb2.GetDeviceRequest(device_id=device_id)
    return server.device.GetDevice(request, timeout=CALL_S).device


def state(server: RunningServer, device_id: str) -> str:
    """Its state, without the enum's prefix."""
    return device_pb2.DeviceState.Name(device(server, device_id).state).removeprefix("DEVICE_STATE_")

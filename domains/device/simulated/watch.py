"""Reads the script's file when it changes, and reports the difference.

    watch = ScriptWatch(script, path)
    watch.listeners.append(lambda difference: …)
    await watch.keep_looking()

An invalid edit changes nothing: the former script holds, and `problem` has the violations.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from domains.device.device import Backend, Device
from domains.device.simulated.describe import unprobed
from domains.device.simulated.script import SimScript
from domains.device.simulated.script_file import read_script
from domains.errors import InvalidRequest

LOOK_EVERY_S = 0.25

_log = structlog.get_logger()

_Stamp = tuple[int, int, int]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that one read of the file found. Ids of devices, in the script's order."""

    appeared: tuple[str, ...] = ()
    """Present for the first time."""
    vanished: tuple[str, ...] = ()
    """No longer present: unplugged, or removed from the file."""
    returned: tuple[str, ...] = ()
    """Present again."""
    changed: tuple[str, ...] = ()
    """Present before and now, with other properties."""
    problem: InvalidRequest | None = None
    """The file is invalid; nothing has changed."""

    def __bool__(self) -> bool:
        return bool(self.appeared or self.vanished or self.returned or self.changed or self.problem)


class ScriptWatch:
    """The current script; also the inventory of the simulated backend."""

    def __init__(
        self,
        script: SimScript,
        path: Path | None = None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`path` None: the script never changes. `pause` waits for so many seconds."""
        self.script = script
        self.problem: InvalidRequest | None = None
        """Violations in the present file; None: it is valid."""
        self.listeners: list[Callable[[Difference], None]] = []
        """Called with each difference, and once with each problem."""
        self._path = path
        self._pause = pause
        self._stamp: _Stamp | None = None
        self._seen = {device.id for device in script.present}
        self._one_at_a_time = asyncio.Lock()

    @property
    def backend(self) -> Backend:
        """SIMULATED."""
        return Backend.SIMULATED

    def look_now(self) -> Mapping[str, Device]:
        """The present devices, by worker name."""
        return {device.id: unprobed(device) for device in self.script.present}

    async def look(self) -> Mapping[str, Device]:
        """The present devices, by worker name, after a look at the file."""
        await self.look_again()
        return self.look_now()

    async def keep_looking(self, every_s: float = LOOK_EVERY_S) -> None:
        """Look until cancelled."""
        while True:
            await self._pause(every_s)
            try:
                await self.look_again()
            except Exception:
                # After a bug in one read of the file, the next read starts as usual.
                _log.exception("a bug ended a look at the simulated devices' script")

    async def look_again(self) -> Difference:
        """The difference since the last look."""
        if self._path is None:
            return Difference()
        async with self._one_at_a_time:
            difference = self._compare(await asyncio.to_thread(self._read, self._path))
        if difference:
            for listener in self.listeners:
                listener(difference)
        return difference

    def _read(self, path: Path) -> SimScript | InvalidRequest | None:
        """The file's script, or its violations; None: the file is unchanged."""
        stamp = _stamp(path)
        if stamp is not None and stamp == self._stamp:
            return None
        # Read before the file: a change made meanwhile is seen in the next look.
        self._stamp = stamp
        try:
            return read_script(path)
        except InvalidRequest as error:
            return error

    def _compare(self, found: SimScript | InvalidRequest | None) -> Difference:
        if found is None:
            return Difference()
        if isinstance(found, InvalidRequest):
            known = self.problem is not None and self.problem.violations == found.violations
            self.problem = found
            return Difference(problem=None if known else found)
        before, self.script, self.problem = self.script, found, None
        difference = _difference(before, found, self._seen)
        self._seen.update(difference.appeared)
        return difference


def _difference(before: SimScript, now: SimScript, seen: set[str]) -> Difference:
    was, here = ({device.id: device for device in script.present} for script in (before, now))
    new = [device_id for device_id in here if device_id not in was]
    return Difference(
        appeared=tuple(device_id for device_id in new if device_id not in seen),
        vanished=tuple(device_id for device_id in was if device_id not in here),
        returned=tuple(device_id for device_id in new if device_id in seen),
        changed=tuple(device_id for device_id in here if device_id in was and here[device_id] != was[device_id]),
    )


def _stamp(path: Path) -> _Stamp | None:
    """A stamp that changes when the file is written or replaced; None: the file cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

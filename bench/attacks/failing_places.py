"""The places of a process that call the system, and the one whose calls fail: the Python side of `failing_places.c`."""

import ctypes
import mmap
import os
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from errno import errorcode
from pathlib import Path

import msgspec

from bench.attacks.failing_calls import KINDS, Victim
from bench.attacks.tried import line_of

SOURCE = Path(__file__).with_suffix(".c")
_PLACES, _TEXT = 4096, 1000
_VICTIMS = {1: Victim.SERVER, 2: Victim.NURSERY, 3: Victim.WORKER}
_ROLES = {victim: role for role, victim in _VICTIMS.items()} | {Victim.START: 1, Victim.FIRST_START: 1}
_THREADS = "fork and thread"
_ERRORS = {name: number for number, name in errorcode.items()}


class _Place(ctypes.Structure):
    _fields_ = (
        ("hash", ctypes.c_uint64),
        ("kind", ctypes.c_int32),
        ("role", ctypes.c_int32),
        ("calls", ctypes.c_uint32),
        ("unused", ctypes.c_int32),
        ("text", ctypes.c_char * _TEXT),
    )


class _Table(ctypes.Structure):
    _fields_ = (
        ("armed", ctypes.c_int32),
        ("kind", ctypes.c_int32),
        ("role", ctypes.c_int32),
        ("error", ctypes.c_int32),
        ("forever", ctypes.c_int32),
        ("without_imports", ctypes.c_int32),
        ("failing", ctypes.c_int32),
        ("failed", ctypes.c_int32),
        ("hash", ctypes.c_uint64),
        ("places", _Place * _PLACES),
    )


class Place(msgspec.Struct, frozen=True):
    """One place that calls the system."""

    kind: str
    """A key of `KINDS`."""
    victim: Victim
    hash: int
    text: str
    """Its nearest frames: of Python, then of native code."""

    @property
    def line(self) -> str:
        """The line that makes the call, see `line_of`."""
        return line_of(self.text)

    @property
    def in_grpc(self) -> bool:
        """Whether gRPC's core makes the call, and cannot do without: it ends the process where it gets no thread, no memory,
        or no descriptor for its random bytes or its event loop."""
        python, _, native = self.text.partition("|")
        first = next((one for one in python.split() if not one.startswith("python3")), "")
        return "cygrpc" in native and (
            first.startswith("aio/") or "cygrpc" in native.split()[0] or self.kind == _THREADS
        )


class PlaceFault(msgspec.Struct, frozen=True):
    """A place whose calls fail."""

    place: Place
    error: str
    forever: bool
    """Whether all calls of the kind fail after it, wherever they are made; else one call fails."""

    def __str__(self) -> str:
        """As findings name it."""
        since = "from then on" if self.forever else "once"
        return f"{self.place.kind} of {self.place.victim} {self.error} {since} at {self.place.text}"


class Table:
    """The table that this process and the victims map."""

    def __init__(self, path: Path) -> None:
        """Make the file."""
        path.write_bytes(b"")
        os.truncate(path, ctypes.sizeof(_Table))
        with path.open("r+b") as file:
            self._table = _Table.from_buffer(mmap.mmap(file.fileno(), 0))

    def places(self, starts: Victim | None = None) -> list[Place]:
        """All that were reached. `starts`: the server's own alone, and the victim that it is called."""
        kinds = list(KINDS)
        return [
            Place(kinds[one.kind - 1], starts or _VICTIMS[one.role], one.hash, one.text.decode(errors="replace"))
            for one in self._table.places
            if one.hash and one.kind and one.text and (starts is None or one.role == _ROLES[starts])
        ]

    def calls(self) -> dict[int, int]:
        """How often each place was reached, by its hash."""
        return {one.hash: one.calls for one in self._table.places if one.hash}

    def forget(self, *, imports: bool) -> None:
        """Begin with no places. `imports`: whether imports of modules are one."""
        ctypes.memset(self._table.places, 0, ctypes.sizeof(self._table.places))
        self._table.without_imports = not imports

    @contextmanager
    def failing(self, fault: PlaceFault) -> Generator[None]:
        """Calls fail while the block runs."""
        table, kinds = self._table, list(KINDS)
        table.failing = table.failed = 0
        table.kind, table.role = kinds.index(fault.place.kind) + 1, _ROLES[fault.place.victim]
        table.error, table.forever, table.hash = _ERRORS[fault.error], fault.forever, fault.place.hash
        table.armed = 1
        try:
            yield
        finally:
            table.armed = 0

    def wait(self, seconds: float) -> None:
        """Until a call has failed."""
        begin = time.monotonic()
        while not self._table.failed and time.monotonic() - begin < seconds:
            time.sleep(0.1)

    @property
    def failed(self) -> int:
        """Calls that failed in the last block."""
        return self._table.failed


def compiled(folder: Path) -> Path:
    """The library to preload. Needs a C compiler."""
    library = folder / "failing_places.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return library

"""The RAM tier: weight files that stay in the page cache, from which every device of this machine loads.

The pages are locked where the system allows it (RLIMIT_MEMLOCK). Otherwise they are only read into the cache, and the system
may drop them: such a model has `locked` False, and counts as mapped and not as held. A CUDA worker keeps pinned copies of
its own for models that leave it (`on_device/host_tier.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from domains.device.cgroup import host_memory
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.pools.reclaim import IdleModel, cheapest
from domains.model.held_file import PIECE, HeldFile
from domains.model.loaded import LoadedComponent, LoadedModel, LoadedState, Stay, loaded_id, outdated, sources_of
from domains.model.loaded_models import LoadedModels
from domains.model.model import Component, Model
from domains.model.weight_file import WeightFile

_SHARE = 4
Result = TypeVar("Result")
KeepOn = Callable[[], Awaitable[bool]]
"""Waits until the next piece may be read. False: end."""


def quarter_of_host() -> int:
    """The default budget, in bytes."""
    return host_memory().total_bytes // _SHARE


@dataclass(frozen=True)
class Brought:
    """The files of a model that are in RAM, and how long that took."""

    model: Model
    files: dict[str, HeldFile]
    """By path in the model."""
    took_s: float

    @property
    def locked(self) -> bool:
        """Whether the system keeps all of them."""
        return all(file.locked_bytes >= file.size_bytes for file in self.files.values())

    @property
    def read_bytes(self) -> int:
        """Bytes that had to be read from disk."""
        return sum(file.read_bytes for file in self.files.values())

    def close(self) -> None:
        """Release the pages and close the files."""
        for file in self.files.values():
            file.close()


class HostModels:
    """All models of the tier. One event loop."""

    def __init__(self, loaded: LoadedModels, budget_bytes: Callable[[], int] = quarter_of_host) -> None:
        """`budget_bytes`: most bytes that the tier holds."""
        self._loaded = loaded
        self.budget_bytes = budget_bytes
        self._held: dict[str, Brought] = {}
        """By id of the loaded model."""
        self._ahead: set[str] = set()
        """Those that no caller loaded: they were read ahead."""
        loaded.listeners.append(self._used_by_a_device)

    @property
    def held_bytes(self) -> int:
        """Bytes of the files in the tier."""
        return sum(file.size_bytes for one in self._held.values() for file in one.files.values())

    @property
    def locked_bytes(self) -> int:
        """Bytes that the system keeps in RAM."""
        return sum(file.locked_bytes for one in self._held.values() for file in one.files.values())

    def owners(self) -> Sequence[MemoryOwner]:
        """The models whose pages are locked, with their bytes."""
        now, known = time.time(), {one.id: one for one in self._loaded.list()}
        return [
            MemoryOwner(
                kind=OwnerKind.LOADED_MODEL,
                id=name,
                live_bytes=sum(file.locked_bytes for file in one.files.values()),
                reclaimable=name in known and not known[name].stays(now),
            )
            for name, one in self._held.items()
            if one.locked
        ]

    def find(self, model: Model) -> LoadedModel | None:
        """The model in the tier, with the weights that its last scan saw. None: it is not there."""
        name = loaded_id(model.id, "")
        there = self._loaded.get(name) if name in self._held else None
        return None if there is None or outdated(there, model.sha256) else there

    async def read(self, model: Model, tell: Callable[[int, int], None], keep_on: KeepOn) -> Brought | None:
        """Bring a model's weight files into RAM, piece by piece. None: `keep_on` ended it, and nothing is kept.

        `tell` gets the bytes that are there and all bytes. Raises COMPONENT_MISSING, MODEL_CORRUPT, ILLEGAL_STATE (a file
        that has changed since its scan).
        """
        begin = time.monotonic()
        with ExitStack() as closing:
            files: dict[str, HeldFile] = {}
            for path in weight_paths(model):
                files[path] = await _in_thread(lambda path=path: _open(model, path))
                closing.callback(files[path].close)
            total, done = sum(file.size_bytes for file in files.values()), 0
            for file in files.values():
                for at in range(0, file.size_bytes, PIECE):
                    if not await keep_on():
                        return None
                    done += await _in_thread(lambda file=file, at=at: file.bring(at))
                    tell(done, total)
                file.check_unchanged()
            closing.pop_all()
            return Brought(model, files, time.monotonic() - begin)

    def put(
        self, brought: Brought, stay: Stay | None = None, *, job_id: str = "", session_id: str = "", ahead: bool = False
    ) -> LoadedModel:
        """Add a model, and drop an older entry of the same model. `ahead`: no caller has loaded it."""
        model, name = brought.model, loaded_id(brought.model.id, "")
        self.drop(name)
        now = time.time()
        loaded = LoadedModel(
            id=name,
            model_id=model.id,
            device_id="",
            components=tuple(_component(brought, part) for part in model.components if _weights(part)),
            load_time_s=now,
            last_use_time_s=now,
            model_sha256=model.sha256,
            load_s=brought.took_s,
            locked=brought.locked,
        )
        self._held[name] = brought
        if ahead:
            self._ahead.add(name)
        return self._loaded.put(loaded, stay, job_id=job_id, session_id=session_id)

    def take_over(self, there: LoadedModel, stay: Stay, *, job_id: str = "") -> LoadedModel:
        """Note that a caller loads a model that is there already."""
        self._ahead.discard(there.id)
        return self._loaded.put(there, stay, job_id=job_id)

    def drop(self, name: str) -> int:
        """Let a model (id of the loaded model) go; returns the bytes that were locked. Ignores one that is not there."""
        self._ahead.discard(name)
        if (one := self._held.pop(name, None)) is None:
            return 0
        locked = sum(file.locked_bytes for file in one.files.values())
        one.close()
        self._loaded.remove(name)
        return locked

    def victims(self, need_bytes: int, *, only_ahead: bool, keep: Collection[str] = ()) -> list[str] | None:
        """Models to drop so that `need_bytes` more fit into the budget; the cheapest to bring back first.

        Pinned models and those within their keep-alive stay. `only_ahead`: only those that were read ahead. `keep`: models
        (ids) that stay too. None: the others do not suffice.
        """
        missing = self.held_bytes + need_bytes - self.budget_bytes()
        if missing <= 0:
            return []
        now = time.time()
        idle = [
            IdleModel(id=one.id, bytes=self._size(one.id), idle_s=now - one.last_use_time_s, load_s=one.load_s)
            for one in self._loaded.list()
            if one.id in self._held and not one.stays(now) and one.model_id not in keep
            if one.id in self._ahead or not only_ahead
        ]
        chosen = cheapest(idle, missing)
        return [one.id for one in chosen] if sum(one.bytes for one in chosen) >= missing else None

    def close(self) -> None:
        """Let all models go."""
        for name in list(self._held):
            self.drop(name)

    def _size(self, name: str) -> int:
        return sum(file.size_bytes for file in self._held[name].files.values())

    def _used_by_a_device(self, one: LoadedModel, there: bool) -> None:
        """A device has loaded a model, out of the tier if it is there."""
        if there and one.device_id and one.state is LoadedState.READY:
            self._loaded.used([loaded_id(one.model_id, "")])


def weight_paths(model: Model) -> list[str]:
    """The model's weight files, each once, in the order of its components."""
    return list(dict.fromkeys(path for part in model.components for path in _weights(part)))


def _weights(component: Component) -> list[str]:
    return [path for path in component.files if path.endswith(".safetensors")]


def _component(brought: Brought, part: Component) -> LoadedComponent:
    others = {path for other in brought.model.components if other.id != part.id for path in _weights(other)}
    files = _weights(part)
    # One file may hold several components; then the scan knows their sizes.
    size = part.size_bytes if others & {*files} else sum(brought.files[path].size_bytes for path in files)
    return LoadedComponent(id=part.id, bytes=size, precision=part.precision, sources=sources_of(brought.model, part.id))


def _open(model: Model, path: str) -> HeldFile:
    """A weight file with the content that its scan saw. Raises as `WeightFile`."""
    file = WeightFile(model, path)
    try:
        for _ in file.checked():
            pass
        return HeldFile(file)
    except BaseException:
        file.close()
        raise


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Do work in a thread. A cancelled caller waits for its end, because the work uses files that are then closed."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise

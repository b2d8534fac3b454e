"""A model on a device, as a value; `loaded_models.py` keeps them all."""

import hashlib
from enum import StrEnum

import msgspec

from domains.failure import Failure
from domains.model.execution import AS_USUAL, Execution
from domains.model.model import Model
from domains.model.ways import AS_THE_SERVER_CHOOSES, Ways

_HOST_TIER = "host"
LONGEST_STAY_S = 30 * 24 * 3600.0
"""Longest keep-alive."""


class LoadedState(StrEnum):
    """State of a loaded model, from load to removal."""

    LOADING = "loading"
    READY = "ready"
    OFFLOADED = "offloaded"
    """Its weights wait in the RAM tier; the next job that needs it on its device brings them back."""
    UNLOADED = "unloaded"
    """Gone. Only in a change, never in a list."""
    FAILED = "failed"
    """Could not be loaded, or was lost with its device. Only in a change, never in a list."""


ENDED = frozenset({LoadedState.UNLOADED, LoadedState.FAILED})
"""States of a loaded model that is gone."""


class LoadedSource(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that a component was read from."""

    blob_id: str
    generation: int
    """Edition of its content that was read."""


class LoadedComponent(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a loaded model; its bytes are counted on its tensors."""

    id: str
    bytes: int
    precision: str
    """Precision of its computation, in torch's words."""
    quantization: str = ""
    """How its weights are stored in fewer bits (see `weight_quantization`). Empty: they are not."""
    mapped_bytes: int = 0
    """Those of its bytes that are used in place, from the mapped file."""
    sources: tuple[LoadedSource, ...] = ()
    """Empty: it was read from files."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a device."""

    id: str
    """`<model>@<device>`: a device holds a model once; `<model>@host` in the RAM tier."""
    model_id: str
    device_id: str
    """Empty: it is in host memory for no device in particular (the RAM tier)."""
    components: tuple[LoadedComponent, ...]
    """The denoiser first."""
    load_time_s: float
    """Unix time at which it became ready; 0: it is loading."""
    last_use_time_s: float
    state: LoadedState = LoadedState.READY
    model_sha256: str = ""
    """Hash over its weights at the load (see `domains.model.fingerprint`). Empty: its worker did not report one."""
    pinned: bool = False
    keep_alive_s: float = 0.0
    """How long it stays without being used, even if other work needs the room. 0: until other work needs the room."""
    kept_since_s: float = 0.0
    """Unix time at which the keep-alive was set last; it counts from there, or from the last use."""
    load_s: float | None = None
    """Seconds that its load took. None: its worker did not report it."""
    offload: str = ""
    """Which of its parts wait in host memory while they do not compute (see `Execution`). Empty: none."""
    offload_budget_bytes: int = 0
    """See `Execution`."""
    ways: Ways = AS_THE_SERVER_CHOOSES
    """See `Execution`."""
    asked: Execution = AS_USUAL
    """What its load asked for, with the denoiser's precision. It comes back from the RAM tier so."""
    session_id: str = ""
    """The session that loaded it. Empty: none."""
    failure: Failure | None = None
    """Why it FAILED."""
    locked: bool = False
    """In the RAM tier: whether the system keeps its pages in RAM. False: it may drop them and read them again."""

    @property
    def size_bytes(self) -> int:
        """Size of all components."""
        return sum(component.bytes for component in self.components)

    @property
    def quantization(self) -> str:
        """How the denoiser's weights are stored in fewer bits. Empty: they are not."""
        return next((one.quantization for one in self.components if one.quantization), "")

    @property
    def way(self) -> Execution:
        """How it computes, without its precisions."""
        return Execution(
            quantization=self.quantization,
            offload=self.offload,
            offload_budget_bytes=self.offload_budget_bytes,
            ways=self.ways,
        )

    @property
    def resident_bytes(self) -> int:
        """Bytes that stay on its device while no job uses it."""
        return 0 if self.way.in_turns else self.size_bytes

    @property
    def expire_s(self) -> float | None:
        """Unix time at which it is unloaded if no job uses it. None: never by itself."""
        if self.pinned or not self.keep_alive_s:
            return None
        return max(self.last_use_time_s, self.kept_since_s) + self.keep_alive_s

    def stays(self, now_s: float) -> bool:
        """Whether it stays at this time although others need room: it is pinned, or within its keep-alive."""
        return self.pinned or (self.expire_s is not None and self.expire_s > now_s)

    @property
    def etag(self) -> str:
        """Changes with state, parts, pinning and keep-alive, not with a use."""
        told = msgspec.structs.replace(self, last_use_time_s=0.0, kept_since_s=0.0)
        return hashlib.sha256(msgspec.msgpack.encode(told)).hexdigest()[:16]


class Stay(msgspec.Struct, frozen=True, kw_only=True):
    """How long a loaded model shall stay."""

    pinned: bool | None = None
    """Whether it stays when others need room. None: as it is."""
    keep_alive_s: float | None = None
    """See `LoadedModel`. None: as it is."""


class LoadedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model that came into another state, or that stays for another time."""

    loaded: LoadedModel
    time_s: float
    """Unix time of the change."""
    job_id: str = ""
    """The job that caused the change. Empty: none did."""


def sources_of(model: Model, component_id: str) -> tuple[LoadedSource, ...]:
    """The blobs that a component's weights are read from. Empty: they lie in files."""
    paths = next((part.files for part in model.components if part.id == component_id), ())
    stamps = [model.stamp(path) for path in paths if path.endswith(".safetensors")]
    return tuple(LoadedSource(blob_id=one.blob_id, generation=one.generation) for one in stamps if one.blob_id)


def loaded_id(model_id: str, device_id: str) -> str:
    """The id of a model on a device. An empty device: in the RAM tier."""
    return f"{model_id}@{device_id or _HOST_TIER}"


def outdated(loaded: LoadedModel, sha256: str) -> bool:
    """Whether the model's files now have other weights, with the hash `sha256`. A load replaces the model.

    False if the worker did not report what it loaded, and if the files cannot be read (`sha256` is empty).
    """
    return bool(loaded.model_sha256 and sha256) and loaded.model_sha256 != sha256

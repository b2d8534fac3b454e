"""Computes GetSystemStatus from real state: readiness of each domain, workers, versions, start-up timing."""

import platform
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from deviceops.common.v1 import domain_pb2, error_pb2
from deviceops.processing.v1 import system_status_pb2 as pb
from deviceops.processing.v1.node_pb2 import NodeStatus
from domains import limits
from domains.checkpoints import Checkpoints, has_wal_reset_bug
from domains.clock import ClockWatch
from domains.device.devices import Devices
from domains.draining import Draining
from domains.events import BOUNDS
from domains.failure import Failure
from domains.reasons import Domain
from domains.storage import Durability
from server import convert
from server.inference.servicer import CONTRACT_VERSION
from server.memory.blob_pieces import CHUNK_BYTES
from server.scrub import scrubbed
from server.settings import Settings, is_loopback
from server.version import LIBRARIES, SERVER_VERSION
from server.worker.keeper import KeeperState, WorkerKeeper

DEPENDS: dict[int, list[domain_pb2.Domain.ValueType]] = {
    domain_pb2.DOMAIN_DEVICE: [],
    domain_pb2.DOMAIN_MEMORY: [domain_pb2.DOMAIN_DEVICE],
    domain_pb2.DOMAIN_MODEL: [domain_pb2.DOMAIN_MEMORY],
    domain_pb2.DOMAIN_INFERENCE: [domain_pb2.DOMAIN_MODEL],
    domain_pb2.DOMAIN_POSTPROCESSING: [domain_pb2.DOMAIN_MODEL],
    domain_pb2.DOMAIN_PROCESSING: [domain_pb2.DOMAIN_INFERENCE, domain_pb2.DOMAIN_POSTPROCESSING],
}
"""By domain: the domains that it needs. In order of their start."""

_NEEDS_DEVICE = (domain_pb2.DOMAIN_DEVICE, domain_pb2.DOMAIN_INFERENCE)
"""Domains that cannot work before a worker is ready. The others read and queue at once."""

_STORES = (domain_pb2.DOMAIN_MEMORY, domain_pb2.DOMAIN_MODEL, domain_pb2.DOMAIN_PROCESSING)
"""Domains that write to the state folder."""

_WORKER_STATES = {
    KeeperState.STARTING: pb.WORKER_STATE_STARTING,
    KeeperState.READY: pb.WORKER_STATE_READY,
    KeeperState.RESTARTING: pb.WORKER_STATE_RESTARTING,
    KeeperState.STOPPED: pb.WORKER_STATE_STOPPED,
}

_DURABILITIES = {
    Durability.PROCESS: pb.ACKNOWLEDGEMENT_DURABILITY_PROCESS,
    Durability.POWER: pb.ACKNOWLEDGEMENT_DURABILITY_POWER,
}


class SystemView:
    """Computes the status on request."""

    def __init__(
        self,
        settings: Settings,
        begin_s: float,
        checkpoints: Checkpoints,
        instance_id: str,
        keepers: Sequence[WorkerKeeper],
        devices: Devices,
        clock: ClockWatch,
        nodes: Callable[[], list[NodeStatus]],
        unbuilt: Mapping[int, Sequence[str]],
        draining: Draining,
    ) -> None:
        """`keepers`: the fleet's own list, which grows; `nodes`: the machines whose devices this server uses; `unbuilt`:
        by domain, the methods that answer UNIMPLEMENTED."""
        self._settings = settings
        self._checkpoints = checkpoints
        self._keepers = keepers
        self._devices = devices
        self._clock = clock
        self._nodes = nodes
        self._unbuilt = unbuilt
        self._draining = draining
        self._begin_s = begin_s
        """Start of the process on the monotonic clock."""
        self._start_time_s = time.time() - (time.monotonic() - begin_s)
        self.instance_id = instance_id
        self.addresses: list[str] = []
        self.serving_s: float | None = None
        self.device_ready_s: float | None = None

    def served(self) -> None:
        """Record that the ports are open."""
        self.serving_s = time.monotonic() - self._begin_s

    def worker_changed(self) -> None:
        """Record when the first worker was ready."""
        if self.device_ready_s is None and self.ready:
            self.device_ready_s = time.monotonic() - self._begin_s

    @property
    def ready(self) -> bool:
        """Whether any device takes work."""
        return any(keeper.state is KeeperState.READY for keeper in self._keepers)

    @property
    def hangs(self) -> bool:
        """Whether every device that takes work is silent."""
        return self._devices.hangs()

    def readiness(self, domain: int) -> pb.Readiness.ValueType:
        """The present readiness of a domain."""
        if self._draining.begun:
            return pb.READINESS_STOPPING
        if domain == domain_pb2.DOMAIN_POSTPROCESSING:
            return pb.READINESS_UNAVAILABLE
        if domain in _NEEDS_DEVICE and not self.ready:
            refused = self._keepers and all(keeper.refused for keeper in self._keepers)
            return pb.READINESS_UNAVAILABLE if refused else pb.READINESS_STARTING
        if domain in _STORES and self._checkpoints.failing:
            return pb.READINESS_DEGRADED
        if domain in _NEEDS_DEVICE and self._silent():
            return pb.READINESS_UNAVAILABLE if self.hangs else pb.READINESS_DEGRADED
        return pb.READINESS_READY

    def status(self) -> pb.SystemStatus:
        """The message of the whole status."""
        now = time.monotonic() - self._begin_s
        return pb.SystemStatus(
            server_instance_id=self.instance_id,
            mode=pb.SYSTEM_MODE_DRAINING if self._draining.begun else pb.SYSTEM_MODE_NORMAL,
            domains=[self._domain(domain) for domain in DEPENDS],
            workers=[_worker(keeper) for keeper in self._keepers],
            server_version=SERVER_VERSION,
            contract_version=CONTRACT_VERSION,
            libraries=LIBRARIES,
            platform=platform.platform(),
            listen_addresses=self.addresses,
            limits=pb.SystemLimits(
                max_inline_bytes=limits.INLINE_BYTES,
                max_request_inline_bytes=limits.REQUEST_INLINE_BYTES,
                max_spec_bytes=limits.SPEC_BYTES,
                max_page_bytes=limits.PAGE_BYTES,
                max_message_bytes=self._settings.max_message_bytes,
                blob_chunk_bytes=CHUNK_BYTES,
                queue_capacity=self._settings.queue_capacity,
            ),
            start_time=convert.to_time(self._start_time_s),
            uptime=convert.to_duration(now),
            serving_after=None if self.serving_s is None else convert.to_duration(self.serving_s),
            ready_after=None if self.device_ready_s is None else convert.to_duration(self.device_ready_s),
            retention=pb.RetentionPolicy(
                jobs=convert.to_duration(self._settings.keep_jobs_s),
                blobs=convert.to_duration(self._settings.keep_blobs_s),
                checkpoints=convert.to_duration(self._settings.keep_jobs_s),
                events=convert.to_duration(self._settings.keep_events_s),
                event_count=BOUNDS.count,
                event_bytes=BOUNDS.size_bytes,
            ),
            durability=_DURABILITIES[self._checkpoints.durability],
            insecure_listen=not is_loopback(self._settings.host),
            storage=self._storage(),
            clock=self._clock_status(),
            nodes=self._nodes(),
        )

    def _storage(self) -> pb.StorageStatus:
        return pb.StorageStatus(
            sqlite_version=sqlite3.sqlite_version,
            has_wal_reset_bug=has_wal_reset_bug(),
            failed_checkpoint_count=self._checkpoints.failed_in_a_row,
            last_failure=self._storage_failure(),
        )

    def _clock_status(self) -> pb.ClockStatus:
        left_s = self._clock.agreement_left_s
        return pb.ClockStatus(
            read_time=convert.to_time(time.time()),
            is_in_doubt=left_s is not None,
            reason=self._clock.problem,
            agreement_left=None if left_s is None else convert.to_duration(left_s),
        )

    def _storage_failure(self) -> error_pb2.Failure | None:
        failure = self._checkpoints.failure
        return failure and convert.to_failure(failure, time.time(), Domain.PROCESSING)

    def _domain(self, domain: int) -> pb.DomainReadiness:
        readiness = self.readiness(domain)
        took = self.device_ready_s if domain in _NEEDS_DEVICE else self.serving_s
        return pb.DomainReadiness(
            domain=domain_pb2.Domain.ValueType(domain),
            readiness=readiness,
            depends_on=DEPENDS[domain],
            waits_for=self._waits_for(domain),
            detail=self._detail(domain),
            init_duration=None if took is None else convert.to_duration(took),
            disabled_methods=self._unbuilt.get(domain, []),
            last_failure=self._storage_failure() if domain in _STORES and self._checkpoints.failing else None,
        )

    def _waits_for(self, domain: int) -> list[domain_pb2.Domain.ValueType]:
        """The domains that a domain needs and that are not ready."""
        if domain == domain_pb2.DOMAIN_INFERENCE and self.readiness(domain) == pb.READINESS_STARTING:
            return [domain_pb2.DOMAIN_DEVICE]
        return []

    def _detail(self, domain: int) -> str:
        if domain == domain_pb2.DOMAIN_POSTPROCESSING:
            return "not built yet"
        if domain in _NEEDS_DEVICE and not self.ready:
            told = (
                f"{one.name} {f'cannot: {one.last_problem}' if one.refused else one.state}" for one in self._keepers
            )
            names = ", ".join(told) or "no device is configured"
            return scrubbed(f"waits for a device worker: {names}")
        told = self._silent() if domain in _NEEDS_DEVICE else []
        if domain in _STORES and self._checkpoints.failing:
            told = [f"{self._checkpoints.failed_in_a_row} checkpoints of the state folder failed in a row"]
        if domain == domain_pb2.DOMAIN_PROCESSING and self._clock.problem:
            told = [*told, self._clock.problem]
        return "; ".join(told)

    def _silent(self) -> list[str]:
        """The silent devices, each with the reason."""
        views = self._devices.list()
        return [f"{view.device.id}: {view.condition.silent}" for view in views if view.condition.silent]


def _worker(keeper: WorkerKeeper) -> pb.WorkerStatus:
    device = keeper.link.device if keeper.link else None
    failure = Failure(reason=keeper.last_reason, message=keeper.last_problem)
    return pb.WorkerStatus(
        device_id=device.id if device else keeper.name,
        state=_WORKER_STATES[keeper.state],
        process_id=keeper.pid,
        start_time=convert.to_time(keeper.start_time_s) if keeper.start_time_s else None,
        restart_count=keeper.restarts,
        resident_bytes=_resident(keeper.pid),
        last_failure=convert.to_failure(failure, time.time(), Domain.DEVICE) if keeper.last_problem else None,
        libraries=device.libraries if device else (),
    )


def _resident(pid: int | None) -> int | None:
    """Bytes of a process's resident set; None: the process has ended, or the system cannot tell."""
    try:
        return psutil.Process(pid).memory_info().rss if pid else None
    except (psutil.Error, OSError):
        return None

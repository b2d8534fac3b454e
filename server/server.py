"""The server: its objects, built in order from the parts of `device`, `memory` and `processing`, and its stop."""

import asyncio
import contextlib
import sqlite3
import uuid

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deviceops.common.v1 import domain_pb2
from deviceops.processing.v1 import system_status_pb2
from domains.checkpoints import Checkpoints
from domains.clock import ClockWatch, ExpiryClock, system_clocks
from domains.clock_store import ClockStore
from domains.device.devices import Devices
from domains.device.record import DeviceView
from domains.draining import Draining
from domains.events import BOUNDS, EventLog
from domains.inference.generation import Previews
from domains.model.blob_models import BlobModels
from domains.model.catalogue import Catalogue
from domains.model.host_models import HostModels, quarter_of_host
from domains.model.loaded_models import LoadedModels
from domains.model.roots import Roots
from domains.model.roots_watch import RootsWatch
from domains.processing import event_snapshots
from domains.processing.jobs.expiry import Expiry
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.store import JobStore
from domains.processing.lanes.board import Board
from domains.processing.lanes.queue import JobQueue
from domains.processing.memory.drained_unload import DrainedUnload
from domains.processing.memory.keep_alive import KeepAlive
from domains.processing.memory.last_measures import LastMeasures
from domains.processing.memory.model_use import needed_bytes
from domains.processing.memory.usage import ModelUsages
from domains.processing.sessions.sessions import Sessions
from domains.processing.sessions.store import SessionStore
from domains.processing.workers.unload import Unloading
from server import reflection, scrub
from server.background import Background
from server.device.hardware import Hardware
from server.device.parts import DeviceParts
from server.device.servicer import DeviceServicer
from server.errors import AnsweringErrors
from server.health import Health
from server.inference.servicer import InferenceServicer
from server.leaving import Streams
from server.listen import options
from server.memory.parts import MemoryParts
from server.memory.servicer import MemoryServicer
from server.model.servicer import ModelServicer
from server.once import Once
from server.postprocessing.servicer import PostprocessingServicer
from server.processing.announce import Announcer
from server.processing.job_messages import JobView
from server.processing.nodes import OwnNode
from server.processing.parts import ProcessingParts
from server.processing.servicer import ProcessingServicer
from server.processing.status import CONTRACT_VERSION, DEPENDS, SystemView
from server.processing.watch import Watching
from server.register import register
from server.services import SERVICES, unbuilt
from server.settings import Settings
from server.stdio.hello import own_hello
from server.stdio.transport import StdioTransport
from server.transport import Transport

_CHECKPOINT_S = 5.0
_EXPIRY_S = 60.0
_ENDS_S = 5.0


class Server:
    """All objects of the server, built in order."""

    def __init__(self, settings: Settings, database: sqlite3.Connection, begin_s: float) -> None:
        self.settings = settings
        scrub.hide(settings.state)
        instance_id = uuid.uuid4().hex
        bounds = msgspec.structs.replace(BOUNDS, age_s=settings.keep_events_s)
        expiry = ExpiryClock()
        self.events = EventLog(
            database,
            settings.state,
            instance_id=instance_id,
            bounds=bounds,
            to_store=event_snapshots.stored,
            expiry_now=expiry,
        )
        self.clock = ClockWatch(
            self.events,
            expiry,
            ClockStore(database, settings.state),
            system_clocks(),
            trusted=settings.trust_clock,
        )
        self.jobs = Jobs(
            JobStore(database, settings.state),
            settings.keep_jobs_s,
            expiry=expiry,
            date_doubtful=self.clock.is_date_doubtful,
        )
        measures = LastMeasures()
        self.sessions = Sessions(
            SessionStore(database, settings.state),
            self.jobs,
            settings.keep_jobs_s,
            measures.session_bytes,
            expiry=expiry,
        )
        self.roots = Roots(settings.model_roots)
        self.catalogue = Catalogue(database, self.roots, settings.default_model)
        self.loaded = LoadedModels(settings.keep_models_s)
        tier_bytes = settings.host_tier_bytes
        self.host_models = HostModels(self.loaded, quarter_of_host if tier_bytes is None else lambda: tier_bytes)
        self.draining = Draining()
        hardware = Hardware(settings)
        devices = Devices(self.events, expected=list(hardware.names))
        board = Board(JobQueue(settings.queue_capacity, self.sessions.terms), devices)
        self.devices = DeviceParts(settings, hardware, devices, self.loaded, board, Background())
        unloading = Unloading(self.loaded, self.devices.fleet.worker_of, self.host_models.drop)
        self.memory = MemoryParts(
            settings,
            database,
            self.jobs,
            self.sessions,
            self.loaded,
            self.host_models,
            lambda job: needed_bytes(job, self.catalogue),
            self.devices,
            unloading,
            board,
            self.draining,
            expiry,
            measures,
        )
        self.blobs = self.memory.blobs
        self.processing = ProcessingParts(
            settings,
            self.jobs,
            self.sessions,
            self.catalogue,
            self.loaded,
            self.host_models,
            self.devices,
            self.memory,
            board,
            self.draining,
        )
        self.announcer = Announcer(
            self.events,
            self.devices.devices,
            self.jobs,
            self.loaded,
            self.memory.pools,
            self.memory.reservations,
            self.memory.reclaiming,
            self.blobs,
            self.catalogue,
            self.sessions,
        )
        self.checkpoints = Checkpoints(database, settings.state)
        self.checkpoints.listeners.append(self._storage_changed)
        self.health = Health()
        node = OwnNode(devices, self.draining)
        self.view = SystemView(
            settings,
            begin_s,
            self.checkpoints,
            instance_id,
            self.devices.fleet.keepers,
            devices,
            self.clock,
            lambda: [node.status()],
            unbuilt(),
            self.draining,
        )
        self._keep_alive = KeepAlive(self.loaded, self.jobs, unloading)
        self.servicers = self._servicers(unloading, board)
        self.devices.fleet.on_change.append(self._worker_changed)
        devices.listeners.append(self._device_changed)
        self._once = Once()
        self.streams = Streams()
        self._background = Background()

    def _servicers(self, unloading: Unloading, board: Board) -> dict[int, object]:
        """The servicers by domain."""
        settings, parts = self.settings, self.devices
        processing = ProcessingServicer(
            self.processing.submissions,
            self.blobs,
            self.status,
            JobView(keep_jobs_s=settings.keep_jobs_s, prompts_in_lists=settings.prompts_in_lists),
            self.events,
            self.view.instance_id,
            Watching(self.processing.wishes, _default_previews(settings)),
            self.processing.waits,
            self.clock,
            self.processing.overview,
            self.processing.reproducing,
        )
        inference = InferenceServicer(
            self.processing.submissions,
            self.catalogue,
            self.loaded,
            parts.devices,
            self.processing.plans,
            self.processing.conditioning,
            self.processing.reproducing,
        )
        model = ModelServicer(
            self.processing.submissions,
            self.catalogue,
            self.loaded,
            unloading,
            self.processing.estimates,
            self.blobs,
            self.processing.host_loads,
            self.processing.prefetching,
            BlobModels(self.catalogue, self.loaded, self.blobs),
            DrainedUnload(unloading, board.lanes, board.room, self.jobs),
            ModelUsages(self.jobs, self.loaded),
        )
        device = DeviceServicer(
            parts.devices,
            parts.statuses,
            parts.control,
            parts.care,
            parts.refresh,
            parts.advisor(self.catalogue, self.jobs, self.memory.usable_bytes),
            self.processing.submissions,
        )
        memory = MemoryServicer(self.memory, parts.devices, self.processing.submissions)
        return {
            domain_pb2.DOMAIN_DEVICE: device,
            domain_pb2.DOMAIN_MEMORY: memory,
            domain_pb2.DOMAIN_MODEL: model,
            domain_pb2.DOMAIN_INFERENCE: inference,
            domain_pb2.DOMAIN_POSTPROCESSING: PostprocessingServicer(),
            domain_pb2.DOMAIN_PROCESSING: processing,
        }

    def status(self) -> system_status_pb2.SystemStatus:
        """The present status of the whole server."""
        return self.view.status()

    def _worker_changed(self) -> None:
        self.view.worker_changed()
        self._background.spawn(self.tell_health())

    def _storage_changed(self) -> None:
        self.announcer.storage(self.checkpoints.failure if self.checkpoints.failing else None)
        self._background.spawn(self.tell_health())

    def _device_changed(self, view: DeviceView, before: DeviceView | None) -> None:
        if before is not None and view.condition.silent != before.condition.silent:
            self._background.spawn(self.tell_health())

    async def tell_health(self) -> None:
        """Keep the answers of grpc.health.v1 equal to the readiness in GetSystemStatus."""
        ready = (system_status_pb2.READINESS_READY, system_status_pb2.READINESS_DEGRADED)
        serving = {
            served.service.full_name: self.view.readiness(domain) in ready for domain, served in SERVICES.items()
        }
        await self.health.set(serving, hangs=self.view.hangs)

    def transport(self) -> grpc.aio.Server:
        """A gRPC server with all services and no open port."""
        server = grpc.aio.server(options=options(self.settings))
        self.host(server)
        return server

    def stdio(self, fds: tuple[int, int], ended: asyncio.Event | None = None) -> StdioTransport:
        """Serve the same services to the process that started this one, over frames. Sets `ended` when the pipe ends."""
        transport = StdioTransport(fds, self.settings.max_message_bytes, ended)
        self.host(transport)
        names = tuple(SERVICES[domain].service.full_name for domain in DEPENDS)
        transport.start(own_hello(CONTRACT_VERSION, self.view.instance_id, names))
        return transport

    def host(self, transport: Transport) -> None:
        """Add all services to a transport."""
        answering = AnsweringErrors(transport)
        names: list[str] = []
        for domain in DEPENDS:
            service = SERVICES[domain].service
            register(answering, service, self.servicers[domain], self._once, self.settings.heartbeat_s, self.streams)
            names.append(service.full_name)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, answering)
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        answering.add_generic_rpc_handlers(reflection.handlers(names))

    def begin(self) -> None:
        """Recover the jobs of the last process, and start the workers and the background tasks."""
        # First: it compares the newest stored event with this start.
        self.clock.begin()
        self.announcer.started()
        self.blobs.sweep(self.jobs.ids().__contains__)
        self.processing.transfers.recover()
        self.processing.conversions.recover()
        self.jobs.recover()
        self.sessions.begin()
        self._background.spawn(self.checkpoints.keep_up(_CHECKPOINT_S))
        self._background.spawn(self.clock.keep_looking())
        self._background.spawn(self.events.keep_bounded(_EXPIRY_S))
        self._background.spawn(Expiry(self.jobs, self.blobs).keep_up(_EXPIRY_S))
        self._background.spawn(self.sessions.keep_up(_EXPIRY_S))
        self._background.spawn(self.jobs.keep_ends_stored(_ENDS_S))
        self._background.spawn(self._keep_alive.keep_up())
        self._background.spawn(self.processing.prefetching.keep_up())
        if self.settings.model_roots and self.settings.model_poll_s:
            self._background.spawn(RootsWatch(self.catalogue, self.roots).keep_up(self.settings.model_poll_s))
        for work in (*self.devices.begin(), *self.memory.begin()):
            self._background.spawn(work)

    async def drain(self) -> None:
        """Refuse new work. Wait up to `drain_s` for running jobs, and up to `drain_reads_s` for clients to read pictures.
        Then end open streams with DRAINING."""
        self.draining.begin()
        self.announcer.draining()
        await self.tell_health()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_s):
                await self.processing.dispatcher.idle()
        await self.jobs.unread.settle(self._has_ended, self.settings.drain_reads_s)
        self.streams.cut()

    def _has_ended(self, job_id: str) -> bool:
        job = self.jobs.find(job_id)
        return job is None or job.state.ended

    async def end_tasks(self) -> None:
        """End the workers and the background tasks."""
        # First: a reset that still waits for its worker would report the server's end as a fault of the device.
        self.processing.dispatcher.leave_front_work()
        await self.devices.close()
        await self._background.close()
        await self.processing.dispatcher.idle()
        await self.processing.picture_reader.close()
        self.jobs.store_ends()
        self.host_models.close()
        self.events.close()


def _default_previews(settings: Settings) -> Previews:
    """The previews for a watcher whose request names none."""
    return Previews(every_steps=settings.default_previews_every_steps, max_edge_px=settings.default_preview_edge_px)

"""Builds the server and takes it down again. The only module that constructs; the stop order is read in `serve`."""

import asyncio
import contextlib
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deviceops.device.v1 import device_service_pb2
from deviceops.inference.v1 import inference_service_pb2
from deviceops.memory.v1 import memory_service_pb2
from deviceops.model.v1 import model_service_pb2
from deviceops.postprocessing.v1 import postprocessing_service_pb2
from deviceops.processing.v1 import processing_service_pb2, system_status_pb2
from domains import storage
from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.device.find import find
from domains.errors import AlreadyExists
from domains.memory.blob_store import BlobStore
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModels
from domains.model.roots import Roots
from domains.processing.dispatch import Dispatcher, Lane
from domains.processing.job_queue import JobQueue
from domains.processing.job_run import RunTools
from domains.processing.job_store import JobStore
from domains.processing.jobs import Jobs
from domains.processing.submit import Submissions
from domains.processing.unload import Unloading
from domains.processing.worker import Worker
from server import log, reflection
from server.device import DeviceServicer
from server.errors import ErrorInterceptor
from server.health import Health
from server.inference import InferenceServicer
from server.memory import MemoryServicer
from server.model import ModelServicer
from server.postprocessing import PostprocessingServicer
from server.processing import ProcessingServicer
from server.register import missing, register
from server.settings import Settings
from server.status import DEPENDS, SystemView
from server.worker.keeper import WorkerKeeper

_CHECKPOINT_S = 5.0
_EXPIRY_S = 60.0
_LAST_WORDS_S = 1.0
"""How long open streams may take to hear of the end of their jobs before the ports close."""

_log = structlog.get_logger()


class Server:
    """Everything there is, constructed and wired."""

    def __init__(self, settings: Settings, database: sqlite3.Connection, begin_s: float) -> None:
        self.settings = settings
        self.blobs = BlobStore(database, settings.state / "blobs")
        self.jobs = Jobs(JobStore(database, settings.state), settings.keep_jobs_s)
        self.catalogue = Catalogue(database, Roots(settings.model_roots), settings.default_model)
        self.loaded = LoadedModels()
        names = find(settings.devices)
        self.devices = Devices(expected=names)
        queue = JobQueue(settings.queue_capacity)
        tools = RunTools(self.catalogue, self.loaded, self.blobs)
        self.dispatcher = Dispatcher(self.jobs, queue, tools)
        self.dispatcher.on_load = self._note_load
        self.submissions = Submissions(self.jobs, queue, self.catalogue, self.loaded, self.devices)
        self.keepers = [
            WorkerKeeper(name, self.dispatcher, self.devices, self.loaded, settings.jobs_per_device) for name in names
        ]
        self.health = Health()
        self.servicers = self._servicers()
        unbuilt = {domain: missing(service, servicer) for domain, (service, servicer) in self.servicers.items()}
        self.view = SystemView(settings, unbuilt, begin_s)
        self.view.keepers = self.keepers
        for keeper in self.keepers:
            keeper.on_change = self._worker_changed
        self._tasks: set[asyncio.Task[None]] = set()

    def _servicers(self) -> dict[int, tuple[ServiceDescriptor, object]]:
        """The six services, each with the domain that it speaks for."""
        pb, settings = system_status_pb2, self.settings
        unloading = Unloading(self.loaded, self._worker_of)
        processing = ProcessingServicer(self.submissions, self.blobs, self.status, settings.keep_jobs_s)
        inference = InferenceServicer(
            self.submissions, self.catalogue, self.loaded, self.devices, settings.jobs_per_device
        )
        model = ModelServicer(self.submissions, self.catalogue, self.loaded, unloading)
        return {
            pb.DOMAIN_DEVICE: (_service(device_service_pb2), DeviceServicer(self.devices, settings.jobs_per_device)),
            pb.DOMAIN_MEMORY: (_service(memory_service_pb2), MemoryServicer(self.blobs)),
            pb.DOMAIN_MODEL: (_service(model_service_pb2), model),
            pb.DOMAIN_INFERENCE: (_service(inference_service_pb2), inference),
            pb.DOMAIN_POSTPROCESSING: (_service(postprocessing_service_pb2), PostprocessingServicer()),
            pb.DOMAIN_PROCESSING: (_service(processing_service_pb2), processing),
        }

    def status(self) -> system_status_pb2.SystemStatus:
        """How everything is now."""
        return self.view.status()

    def _worker_of(self, device_id: str) -> Worker | None:
        links = (keeper.link for keeper in self.keepers if keeper.link)
        return next((link for link in links if link.device.id == device_id), None)

    def _note_load(self, lane: Lane) -> None:
        if lane.worker is not None and self._worker_of(lane.device_id) is not None:
            state = DeviceState.BUSY if lane.running else DeviceState.AVAILABLE
            self.devices.put(lane.worker.device, state, len(lane.running))

    def _worker_changed(self) -> None:
        self.view.worker_changed()
        self.spawn(self.tell_health())

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something beside the calls; it ends with the server."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def tell_health(self) -> None:
        """What grpc.health.v1 answers, from the same readiness that GetSystemStatus tells."""
        ready = (system_status_pb2.READINESS_READY, system_status_pb2.READINESS_DEGRADED)
        serving = {
            service.full_name: self.view.readiness(domain) in ready for domain, (service, _) in self.servicers.items()
        }
        await self.health.set(serving)

    def transport(self) -> grpc.aio.Server:
        """A gRPC server with everything on it, its ports not yet open."""
        server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=_options(self.settings))
        names: list[str] = []
        for domain in DEPENDS:
            service, servicer = self.servicers[domain]
            register(server, service, servicer)
            names.append(service.full_name)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, server)
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        server.add_generic_rpc_handlers(reflection.handlers(names))
        return server

    async def expire(self) -> None:
        """Forget jobs that were kept long enough, with their blobs."""
        while True:
            for job_id in self.jobs.expired():
                self.jobs.delete(job_id)
                self.blobs.release(job_id)
            await asyncio.sleep(_EXPIRY_S)

    async def drain(self) -> None:
        """Take no more work, and let what runs come to its end if that is soon."""
        self.submissions.draining = self.view.draining = True
        await self.tell_health()
        self.dispatcher.stop_taking()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.dispatcher.idle(), self.settings.drain_s)

    async def end_tasks(self) -> None:
        """End the workers and everything else that runs beside."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.dispatcher.idle()


def _service(module: object) -> ServiceDescriptor:
    """The one service of a generated `*_service_pb2` module."""
    (service,) = module.DESCRIPTOR.services_by_name.values()  # pyright: ignore[reportAttributeAccessIssue]  # every such module has it
    return service


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # A second server on the same port must fail, not share it.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # .NET clients ping through long loads; the default answers them with GOAWAY.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _has_owner(address: str) -> bool:
    """Whether somebody answers at a Unix socket; gRPC would take its path away from them."""
    if not address.startswith("unix:"):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix("unix:")) == 0


def _listen(server: grpc.aio.Server, settings: Settings) -> list[str]:
    """Open the ports. Raises ID_TAKEN for one that somebody else has."""
    addresses = [f"{settings.host}:{settings.port}"]
    if settings.socket:
        addresses.append(f"unix:{settings.socket.resolve()}")
    opened: list[str] = []
    for address in addresses:
        try:
            port = 0 if _has_owner(address) else server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            message = f"cannot listen on {address}: another program has it; stop that one or choose another --port"
            raise AlreadyExists(message, address=address)
        opened.append(address if address.startswith("unix:") else f"{settings.host}:{port}")
    return opened


@asynccontextmanager
async def serving(settings: Settings, begin_s: float) -> AsyncGenerator[Server]:
    """A running server. Its parts stop in the reverse order of the lines below."""
    with storage.owned(settings.state), contextlib.closing(storage.open_database(settings.state)) as database:
        app = Server(settings, database, begin_s)
        transport = app.transport()
        app.view.addresses = _listen(transport, settings)
        app.blobs.sweep(app.jobs.knows)
        app.jobs.recover()
        app.spawn(storage.keep_checkpointed(settings.state, _CHECKPOINT_S))
        app.spawn(app.expire())
        for keeper in app.keepers:
            app.spawn(keeper.keep())
        await transport.start()
        app.view.served()
        await app.tell_health()
        _log.info("serving", addresses=app.view.addresses, after_s=round(app.view.serving_s or 0.0, 3))
        try:
            yield app
        finally:
            # health NOT_SERVING → jobs ended or left to the next start → server stopped → workers ended
            await app.drain()
            await transport.stop(_LAST_WORDS_S)
            await app.end_tasks()
    _log.info("stopped")


async def _serve(settings: Settings, begin_s: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with serving(settings, begin_s) as app:
        # The line that whoever started us waits for.
        print(f"deviceops: serving on {' '.join(app.view.addresses)}", flush=True)
        await stop.wait()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises what is wrong with the ports or the state folder."""
    begin_s = time.monotonic()
    log.configure(settings.log_format, settings.log_level)
    asyncio.run(_serve(settings, begin_s))
    return 0

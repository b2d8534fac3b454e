"""MemoryService: pools, budgets, reservations and blobs."""

from typing import Any

import grpc

from deviceops.memory.v1 import memory_service_pb2
from domains.device.devices import Devices
from domains.processing.jobs.job import Job
from domains.processing.submit import Submissions
from domains.requests import Asked
from server import convert
from server.heartbeat import Followed
from server.memory.blob_messages import from_transfer
from server.memory.blobs import BlobMethods
from server.memory.parts import MemoryParts
from server.memory.pools import PoolMethods
from server.memory.reservations import ReservationMethods
from server.processing.watch import submit_and_follow

Context = grpc.aio.ServicerContext[Any, Any]


class MemoryServicer(PoolMethods, ReservationMethods, BlobMethods):
    """All methods of MemoryService."""

    def __init__(self, parts: MemoryParts, devices: Devices, submissions: Submissions) -> None:
        PoolMethods.__init__(self, parts.pools, parts.budgets, parts.reclaiming)
        ReservationMethods.__init__(
            self,
            parts.reservation_queue,
            parts.reservations,
            parts.pools,
            submissions.sessions.check_open,
            check_open=parts.check_open,
        )
        BlobMethods.__init__(self, parts.blobs, devices, submissions.jobs.unread, submissions.draining)
        self._submissions = submissions

    def TransferBlob(  # yields the bytes of its responses, see `register`
        self, request: memory_service_pb2.TransferBlobRequest, context: Context
    ) -> Followed[bytes]:
        """Copy or move the bytes of a blob and follow the job."""

        def submit(asked: Asked) -> Job:
            options = convert.from_options(request.options)
            transfer = from_transfer(request.blob_transfer, self._submissions.device_id)
            return self._submissions.transfer(transfer, options, asked, detached=request.detached)

        return submit_and_follow(self._submissions, request, context, submit)

"""ProcessingService: GetQueue."""

from typing import Any

import grpc

from deviceops.common.v1 import error_pb2
from deviceops.processing.v1 import job_queue_pb2, processing_service_pb2
from domains.processing.lanes.overview import Depth, LaneView, QueueOverview, QueueView, Share
from server import convert

Context = grpc.aio.ServicerContext[Any, Any]


class QueueMethods:
    """The method for the queue."""

    def __init__(self, overview: QueueOverview) -> None:
        self._overview = overview

    async def GetQueue(
        self, request: processing_service_pb2.GetQueueRequest, context: Context
    ) -> processing_service_pb2.GetQueueResponse:
        """Tell what waits, for which device and how long."""
        return processing_service_pb2.GetQueueResponse(queue=to_queue(self._overview.now()))


def to_queue(view: QueueView) -> job_queue_pb2.JobQueue:
    """The message of the queue."""
    return job_queue_pb2.JobQueue(
        lanes=map(_lane, view.lanes),
        shares=map(_share, view.shares),
        queued_count=view.queued,
        capacity=view.capacity,
        arrivals_per_second=view.arrivals_per_s,
        completions_per_second=view.completions_per_s,
    )


def _lane(lane: LaneView) -> job_queue_pb2.QueueLane:
    blocked = lane.blocked_by
    return job_queue_pb2.QueueLane(
        device_id=lane.device_id,
        running_job_ids=lane.running,
        free_slots=lane.free_slots,
        depths=map(_depth, lane.depths),
        blocked_by=error_pb2.ERROR_REASON_UNSPECIFIED if blocked is None else convert.to_reason(blocked),
    )


def _depth(depth: Depth) -> job_queue_pb2.QueueDepth:
    wait_s = depth.estimated_wait_s
    return job_queue_pb2.QueueDepth(
        priority=depth.priority,  # pyright: ignore[reportArgumentType]  # the numbers are the enum's
        queued_count=depth.queued,
        oldest_wait=convert.to_duration(depth.oldest_wait_s),
        estimated_wait=None if wait_s is None else convert.to_duration(wait_s),
    )


def _share(share: Share) -> job_queue_pb2.QueueShare:
    return job_queue_pb2.QueueShare(
        session_id=share.session_id,
        weight=share.weight,
        queued_count=share.queued,
        running_count=share.running,
        served_ratio=share.served_ratio,
    )

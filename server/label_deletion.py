"""DeleteByLabels: everything that has some labels, in one call."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from deviceops.processing.v1 import processing_service_pb2 as pb
from domains.answers import Answers
from domains.errors import InvalidRequest, Violation
from domains.labels import Labels
from domains.processing.label_deletion import Deletion, LabelDeletion
from server import convert


class LabelDeletionMethods:
    """Deleting by label."""

    def __init__(self, deletion: LabelDeletion) -> None:
        self._deletion = deletion
        self._deletions = Answers[pb.DeleteByLabelsResponse]()

    async def DeleteByLabels(
        self, request: pb.DeleteByLabelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DeleteByLabelsResponse:
        """Delete it, or tell what would go."""
        labels = convert.from_labels(request.labels, "labels")
        if not labels:
            text = "is empty; give at least one label, so that a forgotten one does not delete everything"
            raise InvalidRequest([Violation(field="labels", message=text, allowed=f"1..{convert.MAX_LABELS} labels")])
        work = self._deletion.plan if request.validate_only else self._deletion.run
        asked = (frozenset(labels), request.validate_only)
        return await self._deletions.once(request.request_id, asked, lambda: _answer(work, labels))


async def _answer(work: Callable[[Labels], Awaitable[Deletion]], labels: Labels) -> pb.DeleteByLabelsResponse:
    done = await work(labels)
    return pb.DeleteByLabelsResponse(
        deleted_job_count=done.jobs.count,
        deleted_job_ids=done.jobs.ids,
        deleted_blob_count=done.blobs.count,
        deleted_blob_ids=done.blobs.ids,
        deferred_blob_count=done.deferred_blobs,
        skipped_job_count=done.skipped_jobs.count,
        skipped_job_ids=done.skipped_jobs.ids,
        freed_bytes=done.freed_bytes,
    )

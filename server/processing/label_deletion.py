"""DeleteByLabels: deletes everything that has some labels."""

from typing import Any

import grpc

from deviceops.processing.v1 import processing_service_pb2 as pb
from domains.errors import InvalidRequest, Violation
from domains.labels import MAX_LABELS, label_violations
from domains.processing.jobs.label_deletion import Deletion, LabelDeletion
from server import convert


class LabelDeletionMethods:
    """Implements DeleteByLabels; the servicer inherits it."""

    def __init__(self, deletion: LabelDeletion) -> None:
        self._deletion = deletion

    async def DeleteByLabels(
        self, request: pb.DeleteByLabelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DeleteByLabelsResponse:
        """Delete what has the labels, or with `validate_only` return what would be deleted."""
        labels = convert.labels_of(request.labels)
        convert.refuse(label_violations(labels, "labels"))
        if not labels:
            text = "is empty; give at least one label, so that a forgotten one does not delete everything"
            raise InvalidRequest([Violation(field="labels", message=text, allowed=f"1..{MAX_LABELS} labels")])
        work = self._deletion.plan if request.validate_only else self._deletion.run
        return _answer(await work(labels))


def _answer(done: Deletion) -> pb.DeleteByLabelsResponse:
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

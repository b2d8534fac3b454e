"""A `request_id` makes a call count once: the same request again gets the blob that the first one made."""

from domains.memory.blobs.blob import Blob
from domains.memory.blobs.rows import AnsweredRequest, BlobRows
from domains.requests import Asked, Known, Requests


def blob_requests(rows: BlobRows) -> Requests[Blob]:
    """Those whose blobs are there. When the blob is gone, so is its request, and the same one makes a new blob."""

    def recall(asked: Asked) -> Known[Blob] | None:
        known = rows.request(asked.key)
        blob = rows.get(known.blob_id) if known else None
        return Known(digest=known.digest, answer=blob, facts={"blob_id": blob.id}) if known and blob else None

    return Requests(recall)


def answered_by(asked: Asked, name: str) -> AnsweredRequest | None:
    """To be written with the blob that answers a request. None: it has no id."""
    return AnsweredRequest(request_id=asked.key, digest=asked.digest, blob_id=name) if asked.request_id else None

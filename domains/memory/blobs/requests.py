"""The blobs that clients make. A `request_id` makes a call count once: the same request again gets the same blob."""

import time

import msgspec

from domains.memory.blobs.access import BlobAccess
from domains.memory.blobs.blob import Blob, BlobOrigin, BlobSpec, BlobState
from domains.memory.blobs.creation import Creation, new_id
from domains.memory.blobs.registration import Registrations
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.rows import AnsweredRequest, BlobRows
from domains.requests import NEW, Asked, Known, Requests


class BlobRequests:
    """Creates, uploads and registrations. Each method returns the blob as it is now."""

    def __init__(
        self,
        rows: BlobRows,
        access: BlobAccess,
        creation: Creation,
        registrations: Registrations,
        keep_for_s: float,
    ) -> None:
        """`keep_for_s`: how long a blob is kept if its request sets no time."""
        self._rows = rows
        self._access = access
        self._creation = creation
        self._registrations = registrations
        self._keep_for_s = keep_for_s
        self._requests: Requests[Blob] = Requests(self._recall)

    def again(self, asked: Asked) -> Blob | None:
        """The blob that the same request made. None: the request is new. REQUEST_ID_REUSED: another request had the id."""
        known = self._requests.known(asked)
        return known and self._access.get(known.id)

    async def create(self, spec: BlobSpec, asked: Asked = NEW) -> Blob:
        """Make a blob: WRITING, or READY if it is filled or empty."""
        return self._access.get((await self._requests.once(asked, lambda: self._create(spec, asked))).id)

    async def begin_upload(self, spec: BlobSpec, asked: Asked = NEW) -> Blob:
        """`create`, or the READY blob that has the announced bytes in the same tier already."""

        async def work() -> Blob:
            present = self._present(spec)
            if present is None:
                return await self._create(spec, asked)
            return self._rows.put(present, request=_answered_by(asked, present.id))

        return self._access.get((await self._requests.once(asked, work)).id)

    async def register(self, wanted: Registration, asked: Asked = NEW) -> Blob:
        """Make a blob of a file or shared memory that another process owns."""
        name = wanted.blob_id or new_id()
        blob = await self._requests.once(
            asked, lambda: self._registrations.register(wanted, name, _answered_by(asked, name))
        )
        return self._access.get(blob.id)

    async def _create(self, spec: BlobSpec, asked: Asked) -> Blob:
        name = new_id()
        return await self._creation.make(spec, BlobOrigin.UPLOAD, name, _answered_by(asked, name))

    def _present(self, spec: BlobSpec) -> Blob | None:
        """A READY blob with the announced bytes, kept at least as long as the request asks. None: there is none."""
        if not spec.sha256 or spec.fill_byte is not None:
            return None
        wanted = (spec.tier, spec.device_id, spec.size_bytes, BlobState.READY)
        for blob in self._rows.with_content(spec.sha256):
            if (blob.tier, blob.device_id, blob.size_bytes, blob.state) == wanted:
                return _kept_longer(blob, self._keep_for_s if spec.keep_for_s is None else spec.keep_for_s)
        return None

    def _recall(self, asked: Asked) -> Known[Blob] | None:
        """An answered request whose blob is there. The same request makes a new blob when its blob is gone."""
        known = self._rows.request(asked.key)
        blob = self._rows.get(known.blob_id) if known else None
        return Known(digest=known.digest, answer=blob, facts={"blob_id": blob.id}) if known and blob else None


def _answered_by(asked: Asked, name: str) -> AnsweredRequest | None:
    """The row that is written with the blob. None: the request has no id."""
    return AnsweredRequest(request_id=asked.key, digest=asked.digest, blob_id=name) if asked.request_id else None


def _kept_longer(blob: Blob, keep_for_s: float) -> Blob:
    """The blob, kept at least `keep_for_s` from now; a job's blob also when the job is deleted earlier."""
    if blob.expire_time_s is None and blob.origin is not BlobOrigin.JOB:
        return blob
    until = time.time() + keep_for_s
    longer = until if blob.expire_time_s is None else max(blob.expire_time_s, until)
    return msgspec.structs.replace(blob, expire_time_s=longer)

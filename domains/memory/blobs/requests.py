"""A `request_id` makes a call count once: the same request again gets the blob that the first one made."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import msgspec

from domains.answers import check_request_id
from domains.errors import AlreadyExists, ErrorReason
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.rows import AnsweredRequest, BlobRows


class Asking:
    """One request while it is answered."""

    def __init__(self, request_id: str = "", digest: str = "", answer: Blob | None = None) -> None:
        self._request_id = request_id
        self._digest = digest
        self.answer = answer
        """What it was answered before. None: it is new."""

    def answered(self, name: str) -> AnsweredRequest | None:
        """To be written with the blob that answers it. None: it has no id."""
        if not self._request_id:
            return None
        return AnsweredRequest(request_id=self._request_id, digest=self._digest, blob_id=name)


class Requests:
    """Those whose blobs are there. When the blob is gone, so is its request, and the same one makes a new blob."""

    def __init__(self, rows: BlobRows) -> None:
        self._rows = rows
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def once(self, method: str, said: msgspec.Struct, request_id: str) -> AsyncGenerator[Asking]:
        """Answer it alone: an equal request waits until this one is answered. REQUEST_ID_REUSED for another with this id."""
        check_request_id(request_id)
        if not request_id:
            yield Asking()
            return
        lock = self._locks.setdefault(request_id, asyncio.Lock())
        async with lock:
            digest = hashlib.sha256(method.encode() + b" " + msgspec.json.encode(said)).hexdigest()
            known = self._rows.request(request_id)
            if known is not None and known.digest != digest:
                message = f"request_id {request_id!r} was used for another request; choose another"
                raise AlreadyExists(
                    message, ErrorReason.REQUEST_ID_REUSED, request_id=request_id, blob_id=known.blob_id
                )
            yield Asking(request_id, digest, self._rows.get(known.blob_id) if known else None)

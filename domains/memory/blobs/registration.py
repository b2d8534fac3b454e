"""RegisterBlob: a file or shared memory of another process becomes a blob, in editions (generations) that its owner counts.

What is under a known id: the same content again changes nothing; a higher generation replaces it when nobody reads it;
other content without a higher generation is refused. Content is the same where the hashes are equal, or, where one of them
is not known, where the file is and was not written since. Generation 0 counts one up when the content is another.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from domains.errors import AlreadyExists, ErrorReason, FailedPrecondition
from domains.memory.blobs.blob import Blob, BlobOrigin, BlobState, BlobTier, MappedFile
from domains.memory.blobs.mapped import FileStamp
from domains.memory.blobs.mapped_tier import MappedBytes
from domains.memory.blobs.quotas import BlobAdmission, Quotas
from domains.memory.blobs.registration_look import Seen, drop, look_at_file, look_at_memory
from domains.memory.blobs.registration_request import Registration, check_registration
from domains.memory.blobs.rows import AnsweredRequest, BlobRows
from domains.memory.blobs.uploads import expiry


class Registrations:
    """Maps what others own."""

    def __init__(
        self,
        rows: BlobRows,
        mapped: MappedBytes,
        quotas: Quotas,
        admission: BlobAdmission,
        is_needed: Callable[[str], bool],
    ) -> None:
        self._rows = rows
        self._mapped = mapped
        self._quotas = quotas
        self._admission = admission
        self._is_needed = is_needed

    async def register(self, asked: Registration, name: str, request: AnsweredRequest | None) -> Blob:
        """The blob, READY, under a name. Everything is decided after the content was read, without another wait."""
        check_registration(asked)
        if asked.session_id:
            self._admission.check_session(asked.session_id)
        seen = await self._look(asked)
        try:
            return self._put(asked, seen, name, request)
        except BaseException:
            drop(seen)
            raise

    async def _look(self, asked: Registration) -> Seen:
        backing = asked.backing
        if isinstance(backing, MappedFile):
            backing = msgspec.structs.replace(backing, path=str(self._mapped.roots.inside(backing.path, "file.path")))
            if not asked.verify:
                # A look at the file's name and size, as the judging of its path was: a thread costs more than both.
                return look_at_file(asked, backing, self._mapped.roots)
            return await asyncio.to_thread(look_at_file, asked, backing, self._mapped.roots)
        return await asyncio.to_thread(look_at_memory, asked, backing)

    def _put(self, asked: Registration, seen: Seen, name: str, request: AnsweredRequest | None) -> Blob:
        known = self._rows.get(name)
        if known is not None:
            same = self._is_same(known, seen)
            if same and known.state is BlobState.READY and asked.generation <= known.generation:
                drop(seen)
                return self._rows.put(known, request=request)
            self._check_replaceable(known, asked, same=same)
        else:
            self._quotas.claim(name, 0)
            self._quotas.settle(name)
        blob = self._blob(asked, seen, name, known)
        if known is not None:
            self._mapped.free(known)
        self._mapped.note(blob.id, seen.source)
        return self._rows.put(blob, request=request)

    def _is_same(self, known: Blob, seen: Seen) -> bool:
        if known.backing != seen.backing or known.size_bytes != seen.size_bytes:
            return False
        if known.sha256 and seen.sha256:
            return known.sha256 == seen.sha256
        return isinstance(seen.source, FileStamp) and self._mapped.stamp(known.id) == seen.source

    def _check_replaceable(self, known: Blob, asked: Registration, *, same: bool) -> None:
        if known.origin is not BlobOrigin.REGISTRATION:
            raise _taken(f"blob {known.id} was not registered; choose another id", known)
        restored = same and asked.generation == known.generation
        if asked.generation and asked.generation <= known.generation and not restored:
            message = f"blob {known.id} has generation {known.generation} with other content; give a higher one"
            raise _taken(message, known)
        if self._is_needed(known.id):
            message = (
                f"generation {known.generation} of blob {known.id} is in use; register again when its readers are gone"
            )
            raise FailedPrecondition(message, ErrorReason.BLOB_IN_USE, blob_id=known.id, generation=known.generation)

    def _blob(self, asked: Registration, seen: Seen, name: str, known: Blob | None) -> Blob:
        generation = asked.generation or (known.generation + 1 if known else 1)
        now = time.time()
        return Blob(
            id=name,
            sha256=seen.sha256,
            size_bytes=seen.size_bytes,
            media_type=asked.media_type,
            create_time_s=now,
            tier=BlobTier.MAPPED,
            origin=BlobOrigin.REGISTRATION,
            keep_for_s=asked.keep_for_s,
            expire_time_s=expiry(asked.keep_for_s),
            generation=generation,
            labels=asked.labels,
            session_id=asked.session_id,
            backing=seen.backing,
            place=known.place if known else 0,
        )


def _taken(message: str, known: Blob) -> AlreadyExists:
    return AlreadyExists(message, ErrorReason.ID_TAKEN, blob_id=known.id, generation=known.generation)

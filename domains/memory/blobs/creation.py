"""How a new blob comes to be: checked, paid for, its memory taken, and filled where that was asked."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Mapping

import msgspec

from domains.errors import InvalidRequest, Violation
from domains.labels import label_violations
from domains.memory.blobs.blob import DEVICE_TIERS, Blob, BlobOrigin, BlobSpec, BlobState, BlobTier
from domains.memory.blobs.quotas import BlobAdmission, Quotas
from domains.memory.blobs.rows import AnsweredRequest, BlobRows
from domains.memory.blobs.tiers import PIECE_BYTES, TierBytes, to_end
from domains.memory.blobs.uploads import expiry, wrong_content

MAX_ALIGNMENT_BYTES = 2 * 1024 * 1024
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


def new_id() -> str:
    """Random, under the prefix that is the server's own."""
    return f"b-{uuid.uuid4().hex}"


def check_spec(spec: BlobSpec, field: str = "blob_spec") -> None:
    """INVALID_FIELD with all that is wrong."""
    wrong: list[Violation] = []
    if spec.size_bytes < 0:
        wrong.append(_wrong(f"{field}.size_bytes", f"{spec.size_bytes} is negative", "0.."))
    if spec.tier is BlobTier.MAPPED:
        wrong.append(_wrong(f"{field}.tier", "a mapped blob is made by RegisterBlob"))
    elif bool(spec.device_id) != (spec.tier in DEVICE_TIERS):
        message = f"the tier {spec.tier} {'needs' if spec.tier in DEVICE_TIERS else 'has no'} device"
        wrong.append(_wrong(f"{field}.device_id", message))
    alignment = spec.alignment_bytes
    if not 0 <= alignment <= MAX_ALIGNMENT_BYTES or alignment & (alignment - 1):
        wrong.append(_wrong(f"{field}.alignment_bytes", f"{alignment} is no power of two in 1..2097152", "1..2097152"))
    if spec.fill_byte is not None and not 0 <= spec.fill_byte <= 255:
        wrong.append(_wrong(f"{field}.fill_byte", f"{spec.fill_byte} is no byte", "0..255"))
    if spec.keep_for_s is not None and not 0 < spec.keep_for_s < 10 * 365 * 86400:
        wrong.append(_wrong(f"{field}.keep_for", "is not a positive time below ten years"))
    if spec.sha256 and not is_sha256(spec.sha256):
        wrong.append(_wrong(f"{field}.sha256", "is no SHA-256: 64 lower-case hex digits"))
    wrong += label_violations(spec.labels, f"{field}.labels")
    if wrong:
        raise InvalidRequest(wrong)


def is_sha256(text: str) -> bool:
    """64 lower-case hex digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _wrong(field: str, message: str, allowed: str = "") -> Violation:
    return Violation(field=field, message=message, allowed=allowed)


class Creation:
    """Makes blobs of the tiers that the server writes itself."""

    def __init__(
        self, rows: BlobRows, tiers: Mapping[BlobTier, TierBytes], quotas: Quotas, admission: BlobAdmission
    ) -> None:
        self._rows = rows
        self._tiers = tiers
        self._quotas = quotas
        self._admission = admission

    async def make(
        self,
        spec: BlobSpec,
        origin: BlobOrigin,
        name: str,
        request: AnsweredRequest | None = None,
        *,
        job_id: str = "",
    ) -> Blob:
        """A blob with its memory: WRITING, or READY where it was filled or is empty. Raises and leaves nothing."""
        check_spec(spec)
        blob = msgspec.structs.replace(self._blob(spec, origin, name), origin_job_id=job_id)
        if spec.session_id:
            self._admission.check_session(spec.session_id)
        self._quotas.claim(name, spec.size_bytes)
        memory = self._tiers[spec.tier]
        try:
            async with self._admission.admit(blob, spec):
                return await self._take(blob, spec, memory, request)
        finally:
            self._quotas.settle(name)

    async def _take(self, blob: Blob, spec: BlobSpec, memory: TierBytes, request: AnsweredRequest | None) -> Blob:
        try:
            await to_end(memory.allocate(blob, spec.alignment_bytes))
            return self._rows.put(await self._filled(blob, spec, memory), request=request)
        except BaseException:
            memory.free(blob)
            raise

    def _blob(self, spec: BlobSpec, origin: BlobOrigin, name: str) -> Blob:
        keep_for_s = self._quotas.limits.keep_for_s if spec.keep_for_s is None else spec.keep_for_s
        return Blob(
            id=name,
            sha256="",
            expected_sha256=spec.sha256,
            size_bytes=spec.size_bytes,
            missing_bytes=spec.size_bytes,
            media_type=spec.media_type,
            create_time_s=time.time(),
            tier=spec.tier,
            state=BlobState.WRITING,
            origin=origin,
            keep_for_s=keep_for_s,
            expire_time_s=expiry(keep_for_s),
            labels=spec.labels,
            session_id=spec.session_id,
            device_id=spec.device_id,
        )

    async def _filled(self, blob: Blob, spec: BlobSpec, memory: TierBytes) -> Blob:
        sha256 = _EMPTY_SHA256 if blob.size_bytes == 0 else ""
        if spec.fill_byte is not None and blob.size_bytes:
            sha256 = await _fill(blob, memory, spec.fill_byte)
        if not sha256:
            return blob
        if blob.expected_sha256 and blob.expected_sha256 != sha256:
            raise wrong_content(blob, sha256)
        return msgspec.structs.replace(blob, state=BlobState.READY, sha256=sha256, missing_bytes=0)


async def _fill(blob: Blob, memory: TierBytes, byte: int) -> str:
    """Write one byte everywhere; the hash of that."""
    digest = hashlib.sha256()
    piece = bytes((byte,)) * min(PIECE_BYTES, blob.size_bytes)
    for offset in range(0, blob.size_bytes, PIECE_BYTES):
        part = piece[: blob.size_bytes - offset]
        await to_end(memory.write(blob, offset, part))
        await asyncio.to_thread(digest.update, part)
    return digest.hexdigest()

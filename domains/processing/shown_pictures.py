"""Pictures that previews show: kept as blobs for an hour."""

import hashlib

from domains.memory.blobs.blob import Blob, BlobSpec, BlobState
from domains.memory.blobs.store import BlobStore

MEDIA_TYPE = "image/png"
_KEEP_S = 3600.0


async def shown(blobs: BlobStore, file: bytes) -> Blob:
    """The blob with a PNG. Raises STORAGE_FULL."""
    spec = BlobSpec(
        size_bytes=len(file), media_type=MEDIA_TYPE, sha256=hashlib.sha256(file).hexdigest(), keep_for_s=_KEEP_S
    )
    blob = await blobs.requests.begin_upload(spec)
    return await blobs.write_chunk(blob.id, 0, file) if blob.state is BlobState.WRITING else blob

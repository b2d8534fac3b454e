"""Frees the bytes of removed blobs. A failure is logged, kept and tried again."""

from collections.abc import Callable, Mapping

import msgspec
import structlog

from domains.memory.blobs.blob import Blob, BlobTier
from domains.memory.blobs.tiers import ReadableBytes

_log = structlog.get_logger()


class UnfreedBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A removed blob whose bytes could not be freed."""

    blob: Blob
    why: str


def note_unfreed(kept: dict[str, UnfreedBlob], blob: Blob, error: Exception) -> None:
    """Log the failure and keep the blob for the next try."""
    _log.warning("the bytes of a blob could not be freed", blob_id=blob.id, tier=str(blob.tier), why=str(error))
    kept[blob.id] = UnfreedBlob(blob=blob, why=str(error))


class Freeing:
    """The tiers that free at once. `DeviceBytes` keeps the failures of the workers itself."""

    def __init__(self, tiers: Mapping[BlobTier, ReadableBytes], is_there: Callable[[str], bool]) -> None:
        """`is_there`: whether a blob with this id exists; the same content may have been stored again."""
        self._tiers = tiers
        self._is_there = is_there
        self.unfreed: dict[str, UnfreedBlob] = {}

    def free(self, blob: Blob) -> None:
        """Free the bytes. A failure is kept and not raised, so that the caller frees the other blobs."""
        try:
            self._tiers[blob.tier].free(blob)
        except OSError as error:
            note_unfreed(self.unfreed, blob, error)
        else:
            self.unfreed.pop(blob.id, None)

    def retry(self) -> None:
        """Free again what could not be freed, unless the same content was stored again."""
        for blob_id, unfreed in list(self.unfreed.items()):
            if self._is_there(blob_id):
                del self.unfreed[blob_id]
            else:
                self.free(unfreed.blob)

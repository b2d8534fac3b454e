"""Gives back the bytes of blobs that are gone. What fails is told, kept and tried again: nothing is lost unseen."""

from collections.abc import Callable, Mapping

import msgspec
import structlog

from domains.memory.blobs.blob import Blob, BlobTier
from domains.memory.blobs.tiers import ReadableBytes

_log = structlog.get_logger()


class UnfreedBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that is gone while its bytes still take room."""

    blob: Blob
    why: str


def note_unfreed(kept: dict[str, UnfreedBlob], blob: Blob, error: Exception) -> None:
    """Keep it among those that are tried again."""
    _log.warning("the bytes of a blob could not be freed", blob_id=blob.id, tier=str(blob.tier), why=str(error))
    kept[blob.id] = UnfreedBlob(blob=blob, why=str(error))


class Freeing:
    """The bytes that the server frees itself; devices do it in their own time (`DeviceBytes`)."""

    def __init__(self, tiers: Mapping[BlobTier, ReadableBytes], is_there: Callable[[str], bool]) -> None:
        """`is_there`: whether there is a blob by that id (again)."""
        self._tiers = tiers
        self._is_there = is_there
        self.unfreed: dict[str, UnfreedBlob] = {}

    def free(self, blob: Blob) -> None:
        """Now; the failure of one must not keep others from being freed."""
        try:
            self._tiers[blob.tier].free(blob)
        except OSError as error:
            note_unfreed(self.unfreed, blob, error)
        else:
            self.unfreed.pop(blob.id, None)

    def retry(self) -> None:
        """Free again what could not be freed, unless the same content was made anew: then it is wanted."""
        for blob_id, unfreed in list(self.unfreed.items()):
            if self._is_there(blob_id):
                del self.unfreed[blob_id]
            else:
                self.free(unfreed.blob)

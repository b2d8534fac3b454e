"""The listeners of a blob store. Each listener adds itself in its own constructor."""

from collections.abc import Callable

from domains.memory.blobs.blob import Blob

BlobListener = Callable[[Blob], None]


class BlobListeners:
    """Lists of the functions that are called with a blob."""

    def __init__(self) -> None:
        self.on_expired: list[BlobListener] = []
        """Called with each blob that was removed because it had expired."""
        self.on_spoilt: list[BlobListener] = []
        """Called with each blob that became LOST or CORRUPT."""

    def tell_expired(self, blob: Blob) -> None:
        """Call the listeners of an expired blob."""
        for tell in self.on_expired:
            tell(blob)

    def tell_spoilt(self, blob: Blob) -> None:
        """Call the listeners of a LOST or CORRUPT blob."""
        for tell in self.on_spoilt:
            tell(blob)

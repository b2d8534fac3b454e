"""Filters and pages of lists of blobs."""

import msgspec

from domains.labels import has_all
from domains.memory.blobs.blob import Blob, BlobOrigin, BlobState, BlobTier


class BlobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A filter. Every field that is set must fit, and any one value of a tuple. Empty: every blob."""

    tiers: tuple[BlobTier, ...] = ()
    states: tuple[BlobState, ...] = ()
    origins: tuple[BlobOrigin, ...] = ()
    media_type: str = ""
    """`image/*` fits every image."""
    sha256: str = ""
    session_id: str = ""
    origin_job_id: str = ""
    device_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    """The blob has all of these. An empty value fits any value."""

    def fits(self, blob: Blob) -> bool:
        """Whether the blob passes the filter."""
        return (
            (not self.tiers or blob.tier in self.tiers)
            and (not self.states or blob.state in self.states)
            and (not self.origins or blob.origin in self.origins)
            and _fits_media_type(self.media_type, blob.media_type)
            and self.sha256 in ("", blob.sha256)
            and self.session_id in ("", blob.session_id)
            and self.origin_job_id in ("", blob.origin_job_id)
            and self.device_id in ("", blob.device_id)
            and has_all(self.labels, blob.labels)
        )


def _fits_media_type(wanted: str, has: str) -> bool:
    if wanted.endswith("/*"):
        return has.startswith(wanted[:-1])
    return wanted in ("", has)


class BlobPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list."""

    blobs: tuple[Blob, ...]
    """Newest first."""
    next_place: int | None
    """The place at which the next page begins. None: this page is the last."""
    total_bytes: int
    """The size of all blobs that pass the filter."""


def page_of(blobs: list[Blob], wanted: BlobFilter, place: int | None, size: int) -> BlobPage:
    """The page that begins at `place`; None: at the newest blob. `blobs` may be in any order."""
    fitting = [blob for blob in blobs if wanted.fits(blob)]
    rest = fitting if place is None else [blob for blob in fitting if blob.place <= place]
    rest.sort(key=lambda blob: blob.place, reverse=True)
    return BlobPage(
        blobs=tuple(rest[:size]),
        next_place=rest[size].place if len(rest) > size else None,
        total_bytes=sum(blob.size_bytes for blob in fitting),
    )

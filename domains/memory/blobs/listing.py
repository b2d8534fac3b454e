"""Filters and pages of lists of blobs."""

import asyncio
from collections.abc import Iterator
from itertools import islice

import msgspec

from domains.labels import has_all
from domains.memory.blobs.blob import Blob, BlobOrigin, BlobState, BlobTier
from domains.memory.blobs.rows import BlobRows


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


LOOKED = 1000
"""Most rows that one page reads, and that a sum reads in one turn of the event loop."""
_SUMS = 64
"""Filters whose sums are kept."""


class BlobPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list."""

    blobs: tuple[Blob, ...]
    """Newest first. May be empty before the last page."""
    next_place: int | None
    """The place at which the next page begins. None: this page is the last."""


def page_of(newest_first: Iterator[Blob], wanted: BlobFilter, size: int) -> BlobPage:
    """The next page of the blobs. Reads at most `LOOKED` blobs, however few of them pass the filter."""
    found: list[Blob] = []
    for looked, blob in enumerate(newest_first):
        if looked == LOOKED or len(found) == size:
            return BlobPage(blobs=tuple(found), next_place=blob.place)
        if wanted.fits(blob):
            found.append(blob)
    return BlobPage(blobs=tuple(found), next_place=None)


class Totals:
    """The sizes of all blobs that pass a filter; the latest sums are kept until a row changes."""

    def __init__(self, rows: BlobRows) -> None:
        self._rows = rows
        self._changes: int | None = None
        """`changes` of the rows that the sums are of. None: nothing was summed yet."""
        self._sums: dict[BlobFilter, int] = {}

    async def total_bytes(self, wanted: BlobFilter) -> int:
        """The sum as of now. Lets the event loop run after each `LOOKED` blobs."""
        if self._changes != self._rows.changes:
            self._changes, self._sums = self._rows.changes, {}
        if wanted in self._sums:
            return self._sums[wanted]
        changes, total = self._changes, 0
        blobs = iter(self._rows.all())
        while piece := list(islice(blobs, LOOKED)):
            total += sum(blob.size_bytes for blob in piece if wanted.fits(blob))
            await asyncio.sleep(0)
        if changes == self._rows.changes and len(self._sums) < _SUMS:
            self._sums[wanted] = total
        return total

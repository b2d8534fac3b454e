"""Copy or move a blob's bytes."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

from domains.memory.blobs.transfer_request import NewBlob, TransferRequest
from domains.processing.jobs.kinds.entry import PlainWork
from domains.reasons import Domain

if TYPE_CHECKING:
    from domains.processing.attempts.front_task import FrontRunners, FrontTask
    from domains.processing.jobs.outcome import Done, Halted


class TransferWork(PlainWork, frozen=True, kw_only=True, tag="transfer_blob"):
    """Copy or move a blob's bytes. Implements `FrontKind`."""

    domain: ClassVar[Domain] = Domain.MEMORY
    at_once: ClassVar[int] = 4

    request: TransferRequest

    @property
    def summary(self) -> str:
        """Names the blob and the tier of its copy."""
        request = self.request
        verb, place = "move" if request.move else "copy", request.destination
        if not isinstance(place, NewBlob):
            return f"{verb} {request.blob_id} into {place.blob_id}"
        tier = str(place.tier).replace("_", " ")
        return " ".join([verb, request.blob_id, "to", tier, *filter(None, [place.device_id])])

    def begin(self, runners: "FrontRunners", task: "FrontTask") -> "Awaitable[Done | Halted]":
        """Run the transfer."""
        return runners.transfer(self, task)

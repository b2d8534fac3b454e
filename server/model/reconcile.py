"""ReconcileModelCache."""

from collections.abc import Sequence
from typing import Any

import grpc
import msgspec

from deviceops.model.v1 import model_cache_pb2, model_service_pb2
from domains import limits
from domains.errors import DeviceOpsError
from domains.memory.blobs.listing import BlobFilter
from domains.memory.blobs.store import BlobStore
from domains.model.catalogue import Catalogue
from domains.model.loaded import outdated
from domains.model.loaded_models import LoadedModels
from domains.model.reconcile import CacheEntry, Comparison, Mismatch, check_entries
from domains.processing.jobs.state import AT_REST
from domains.processing.memory.model_use import users_of
from domains.processing.submit import Submissions
from domains.processing.workers.unload import Unloading
from server.scrub import scrubbed

Context = grpc.aio.ServicerContext[Any, Any]

_MISMATCHES = 300
"""Most disagreements of an answer: the contract's limit."""
_BLOBS = 4000
_LOADS = 8


class ReconcileMethods:
    """Implements ReconcileModelCache."""

    def __init__(
        self,
        submissions: Submissions,
        catalogue: Catalogue,
        loaded: LoadedModels,
        unloading: Unloading,
        blobs: BlobStore,
    ) -> None:
        self._submissions = submissions
        self._catalogue = catalogue
        self._loaded = loaded
        self._unloading = unloading
        self._blobs = blobs

    async def ReconcileModelCache(
        self, request: model_service_pb2.ReconcileModelCacheRequest, context: Context
    ) -> model_service_pb2.ReconcileModelCacheResponse:
        """Name every disagreement between the caller's cache and the server."""
        entries = [_entry(entry) for entry in request.entries]
        check_entries(entries)
        # `each` notices that the file of a mapped blob is gone.
        blobs = [blob async for blob in self._blobs.each(BlobFilter())]
        comparison = Comparison(entries, self._catalogue.find, blobs, self._loaded.list())
        found, in_use = comparison.mismatches(), comparison.in_use()
        if request.repair:
            found = await self._repaired(found)
        wrong = {one.entry for one in found}
        return model_service_pb2.ReconcileModelCacheResponse(
            mismatches=[_to_mismatch(one) for one in found[:_MISMATCHES]],
            blob_ids_in_use=in_use[:_BLOBS],
            prefetch_model_ids=self._needed(entries)[: limits.NAMED_IDS],
            consistent_ratio=sum(entry not in wrong for entry in entries) / len(entries) if entries else None,
            cache_generation=request.cache_generation,
        )

    def _needed(self, entries: Sequence[CacheEntry]) -> list[str]:
        """Models that queued jobs need and that the cache does not hold."""
        held = {entry.model_id for entry in entries}
        waiting = (job for job in self._submissions.jobs.unfinished() if job.state in AT_REST)
        needed = (asset.model_id for job in waiting for asset in job.work.assets)
        return [name for name in dict.fromkeys(needed) if name not in held]

    async def _repaired(self, found: Sequence[Mismatch]) -> list[Mismatch]:
        """The disagreements, after the idle loaded models that are out of date were unloaded."""
        done: dict[str, str] = {}
        for name in dict.fromkeys(name for one in found for name in one.loaded_ids):
            done[name] = await self._unloaded(name)
        return [
            msgspec.structs.replace(one, action_taken="; ".join(filter(None, (done[name] for name in one.loaded_ids))))
            for one in found
        ]

    async def _unloaded(self, loaded_id: str) -> str:
        """What was done about a loaded model. Empty: nothing, because it is up to date, in use or could not be unloaded."""
        one = next((one for one in self._loaded.list() if one.id == loaded_id), None)
        model = self._catalogue.find(one.model_id) if one else None
        if one is None or model is None or not outdated(one, model.sha256):
            return ""
        if users_of(one, self._submissions.jobs.unfinished()):
            return ""
        try:
            await self._unloading.unload([one])
        except DeviceOpsError:
            return ""
        return f"unloaded {one.id}"


def _entry(message: model_cache_pb2.ModelCacheEntry) -> CacheEntry:
    return CacheEntry(
        model_id=message.model_id,
        component_id=message.component_id,
        blob_id=message.blob_id,
        generation=message.generation,
        sha256=message.sha256.lower(),
        evictable=message.evictable,
    )


def _to_mismatch(one: Mismatch) -> model_cache_pb2.ModelCacheMismatch:
    return model_cache_pb2.ModelCacheMismatch(
        kind=model_cache_pb2.ModelCacheMismatchKind.Value(f"MODEL_CACHE_MISMATCH_KIND_{one.kind}"),
        model_id=one.entry.model_id,
        component_id=one.entry.component_id,
        blob_id=one.entry.blob_id,
        loaded_model_ids=one.loaded_ids[:_LOADS],
        caller_value=one.caller_value,
        server_value=one.server_value,
        action_taken=one.action_taken,
        message=scrubbed(one.message),
    )

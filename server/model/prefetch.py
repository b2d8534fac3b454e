"""PrefetchModels."""

import asyncio
from typing import Any

import grpc
import msgspec

from deviceops.model.v1 import model_service_pb2
from domains import limits
from domains.errors import InvalidRequest, NotServed, Violation
from domains.model.catalogue import Catalogue
from domains.processing.memory.prefetch import Hint, Prefetching
from domains.processing.submit import Submissions
from server import convert
from server.model.component_sources import with_components
from server.model.findings import to_finding

Context = grpc.aio.ServicerContext[Any, Any]
_FARTHEST_S = 24 * 3600.0


class PrefetchMethods:
    """Implements PrefetchModels."""

    def __init__(self, submissions: Submissions, catalogue: Catalogue, prefetching: Prefetching) -> None:
        self._submissions = submissions
        self._catalogue = catalogue
        self._prefetching = prefetching

    async def PrefetchModels(
        self, request: model_service_pb2.PrefetchModelsRequest, context: Context
    ) -> model_service_pb2.PrefetchModelsResponse:
        """Take hints which models will be needed."""
        self._submissions.draining.check()
        _check(request)
        if request.session_id:
            self._submissions.sessions.check_open(request.session_id)
        for hint in request.hints:
            convert.check_nodes(hint.devices)
        hints = [self._hint(hint, f"hints[{index}]") for index, hint in enumerate(request.hints)]
        for hint in hints:
            await asyncio.to_thread(self._catalogue.hash_sources, hint.model_id)
        done = self._prefetching.hint(request.session_id, hints)
        return model_service_pb2.PrefetchModelsResponse(
            accepted_model_ids=done.accepted,
            ready_model_ids=done.ready,
            findings=[
                to_finding(msgspec.structs.replace(finding, field=f"hints[{index}]"))
                for index, finding in done.findings
            ],
        )

    def _hint(self, hint: model_service_pb2.PrefetchHint, path: str) -> Hint:
        return Hint(
            model_id=with_components(hint.model_id, hint.components, f"{path}.components"),
            need_in_s=convert.from_duration(hint.need_in) if hint.HasField("need_in") else 0.0,
            device_ids=tuple(map(self._submissions.device_id, hint.devices.device_ids)),
        )


def _check(request: model_service_pb2.PrefetchModelsRequest) -> None:
    """Raise INVALID_FIELD with all violations, NOT_IMPLEMENTED for what is not served."""
    wrong: list[Violation] = []
    if (count := len(request.hints)) > limits.HINTS:
        text = f"has {count} hints; at most {limits.HINTS}"
        wrong.append(Violation(field="hints", message=text, allowed=f"0..{limits.HINTS} hints"))
    unserved: list[Violation] = []
    for index, hint in enumerate(request.hints[: limits.HINTS]):
        wrong += _wrong(hint, f"hints[{index}]")
        unserved += _unserved(hint, f"hints[{index}]")
    if wrong:
        raise InvalidRequest([*unserved, *wrong])
    if unserved:
        raise NotServed(unserved)


def _wrong(hint: model_service_pb2.PrefetchHint, path: str) -> list[Violation]:
    wrong: list[Violation] = []
    if not hint.model_id:
        wrong.append(Violation(field=f"{path}.model_id", message="is empty; name a model"))
    if hint.HasField("need_in") and not 0 <= (seconds := convert.from_duration(hint.need_in)) <= _FARTHEST_S:
        text = f"{seconds:g} s is not within 0 s..24 h"
        wrong.append(Violation(field=f"{path}.need_in", message=text, allowed="0 s..24 h"))
    return wrong


def _unserved(hint: model_service_pb2.PrefetchHint, path: str) -> list[Violation]:
    named = {
        f"{path}.devices.strategy": bool(hint.devices.strategy),
        f"{path}.devices.node_labels": bool(hint.devices.node_labels),
    }
    text = "this server does not serve it yet; leave it empty"
    return [Violation(field=field, message=text) for field, is_set in named.items() if is_set]

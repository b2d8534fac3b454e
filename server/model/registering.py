"""RegisterModel."""

from typing import Any

import grpc

from deviceops.model.v1 import model_service_pb2
from domains.errors import Violation
from domains.model.blob_files import BlobPaths
from domains.model.blob_models import BlobModels
from domains.model.catalogue import Catalogue
from domains.model.composition import Recipe
from domains.model.register import Registration, Registrations
from server import convert
from server.model.findings import to_finding
from server.model.messages import to_model

Context = grpc.aio.ServicerContext[Any, Any]
_YET = "this server does not serve it yet; leave it empty"


class RegisterMethods:
    """Implements the call that makes models known."""

    def __init__(self, catalogue: Catalogue, blobs: BlobModels) -> None:
        self._registrations = Registrations(catalogue, blobs)

    async def RegisterModel(
        self, request: model_service_pb2.RegisterModelRequest, context: Context
    ) -> model_service_pb2.RegisterModelResponse:
        """Make a model known."""
        done = await self._registrations.register(from_request(request))
        return model_service_pb2.RegisterModelResponse(
            model=to_model(done.model, []),
            findings=[to_finding(one) for one in done.findings],
            already_known=done.already_known,
        )


def from_request(request: model_service_pb2.RegisterModelRequest) -> Registration:
    """The registration. Raises INVALID_FIELD, NOT_IMPLEMENTED for fields that are not served."""
    unserved = [name for name in ("kind", "family", "sha256") if _is_set(request, name)]
    components = request.parts_source.components
    places = [f"parts_source.components[{at}]" for at in range(len(components))]
    unserved += [f"{place}.precision" for place, one in zip(places, components, strict=True) if one.precision]
    unserved += [f"{place}.omitted" for place, one in zip(places, components, strict=True) if one.omitted]
    wrong = [
        Violation(field=f"{place}.model_id", message="is empty; name the model that the component comes from")
        for place, one in zip(places, components, strict=True)
        if not one.model_id
    ]
    wrong += _no_files(request)
    convert.refuse(wrong, [Violation(field=name, message=_YET) for name in unserved])
    recipe = Recipe(
        base_id=request.parts_source.base_model_id,
        taken=tuple((one.component_id, one.model_id) for one in components),
    )
    return Registration(
        model_id=request.model_id,
        display_name=request.display_name,
        path=request.path_source.path,
        blobs=from_blob_source(request.blob_source),
        recipe=recipe if request.HasField("parts_source") else None,
        labels=convert.labels_of(request.labels),
        validate_only=request.validate_only,
    )


def from_blob_source(source: model_service_pb2.ModelBlobSource) -> BlobPaths:
    """The paths of a model's files, and their blobs."""
    return tuple((one.path, one.blob_id) for one in source.files)


def _no_files(request: model_service_pb2.RegisterModelRequest) -> list[Violation]:
    if not request.HasField("blob_source") or request.blob_source.files:
        return []
    return [Violation(field="blob_source.files", message="is empty; name the model's files and their blobs")]


def _is_set(request: model_service_pb2.RegisterModelRequest, name: str) -> bool:
    return any(field.name == name for field, _ in request.ListFields())

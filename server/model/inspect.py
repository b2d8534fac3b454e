"""InspectModel: what files are, with the evidence."""

from collections.abc import Callable

from deviceops.model.v1 import model_service_pb2
from domains.errors import InvalidRequest, Violation
from domains.model.blob_models import BlobModels
from domains.model.catalogue import Catalogue
from domains.model.inspect import Inspection
from server.model.findings import to_finding
from server.model.inspect_messages import to_evidence
from server.model.messages import to_model
from server.model.registering import from_blob_source


async def inspect_model(
    catalogue: Catalogue,
    blobs: BlobModels,
    request: model_service_pb2.InspectModelRequest,
    loaded_ids: Callable[[str], list[str]],
) -> model_service_pb2.InspectModelResponse:
    """The answer. `loaded_ids`: where a model is loaded."""
    found = await _inspection(catalogue, blobs, request)
    return model_service_pb2.InspectModelResponse(
        model=to_model(found.model, loaded_ids(found.model.id) if found.registered else []),
        evidence=map(to_evidence, found.model.evidence),
        findings=map(to_finding, found.findings),
        registered=found.registered,
    )


async def _inspection(
    catalogue: Catalogue, blobs: BlobModels, request: model_service_pb2.InspectModelRequest
) -> Inspection:
    match request.WhichOneof("subject"):
        case "model_id":
            return await catalogue.inspector.model(catalogue.get(request.model_id))
        case "path_source":
            return await catalogue.inspector.path(request.path_source.path)
        case "blob_source":
            return await blobs.inspect(from_blob_source(request.blob_source))
        case None:
            text = "is not set; set model_id, path_source or blob_source"
            raise InvalidRequest([Violation(field="subject", message=text)])

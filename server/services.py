"""The six services: the descriptor and the servicer of each domain."""

from collections.abc import Mapping, Sequence

import msgspec
from google.protobuf.descriptor import ServiceDescriptor

from deviceops.common.v1 import domain_pb2
from deviceops.device.v1 import device_service_pb2
from deviceops.inference.v1 import inference_service_pb2
from deviceops.memory.v1 import memory_service_pb2
from deviceops.model.v1 import model_service_pb2
from deviceops.postprocessing.v1 import postprocessing_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from server.device.servicer import DeviceServicer
from server.inference.servicer import InferenceServicer
from server.memory.servicer import MemoryServicer
from server.model.servicer import ModelServicer
from server.postprocessing.servicer import PostprocessingServicer
from server.processing.servicer import ProcessingServicer
from server.register import missing


class Served(msgspec.Struct, frozen=True):
    """One service."""

    service: ServiceDescriptor
    servicer: type


def _of(module: object, servicer: type) -> Served:
    (service,) = module.DESCRIPTOR.services_by_name.values()  # pyright: ignore[reportAttributeAccessIssue]  # generated
    return Served(service, servicer)


SERVICES: Mapping[int, Served] = {
    domain_pb2.DOMAIN_DEVICE: _of(device_service_pb2, DeviceServicer),
    domain_pb2.DOMAIN_MEMORY: _of(memory_service_pb2, MemoryServicer),
    domain_pb2.DOMAIN_MODEL: _of(model_service_pb2, ModelServicer),
    domain_pb2.DOMAIN_INFERENCE: _of(inference_service_pb2, InferenceServicer),
    domain_pb2.DOMAIN_POSTPROCESSING: _of(postprocessing_service_pb2, PostprocessingServicer),
    domain_pb2.DOMAIN_PROCESSING: _of(processing_service_pb2, ProcessingServicer),
}


def unbuilt() -> dict[int, Sequence[str]]:
    """By domain: the methods that no servicer defines. They answer NOT_IMPLEMENTED."""
    return {domain: missing(served.service, served.servicer) for domain, served in SERVICES.items()}

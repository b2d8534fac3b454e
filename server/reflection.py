"""Server reflection under `grpc.reflection.v1` *and* `v1alpha`, with method symbols resolved.

grpcio-reflection serves only v1alpha and does not find methods, so `grpcurl describe Service.Method` fails with it. The two
protocols have the same wire bytes under two package names, so the v1alpha classes read and write both.

Files of the contract are sent with their comments, which a client such as `grpcurl describe` shows.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterable, Mapping
from importlib import resources

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_reflection.v1alpha import reflection_pb2 as v1alpha


@functools.cache
def commented_files() -> Mapping[str, bytes]:
    """The serialized files of the contract with their comments, by name. The first question reads them, not the start."""
    data = (resources.files("deviceops") / "contract.binpb").read_bytes()
    return {file.name: file.SerializeToString() for file in FileDescriptorSet.FromString(data).file}


class Reflection:
    """Answers questions about the server's services from the descriptors that the generated code registered."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted(services)
        self._pool = descriptor_pool.Default()

    async def stream(
        self, requests: AsyncIterator[v1alpha.ServerReflectionRequest], context: object
    ) -> AsyncIterator[v1alpha.ServerReflectionResponse]:
        """Yield one answer for each question, in order."""
        async for request in requests:
            response = v1alpha.ServerReflectionResponse(valid_host=request.host, original_request=request)
            self._answer(request, response)
            yield response

    def _answer(self, request: v1alpha.ServerReflectionRequest, response: v1alpha.ServerReflectionResponse) -> None:
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    names = [v1alpha.ServiceResponse(name=name) for name in self._services]
                    response.list_services_response.service.extend(names)
                case "file_by_filename":
                    self._add_files(response, self._pool.FindFileByName(request.file_by_filename))
                case "file_containing_symbol":
                    self._add_files(response, self._file_of(request.file_containing_symbol))
                case "file_containing_extension":
                    wanted = request.file_containing_extension
                    message = self._pool.FindMessageTypeByName(wanted.containing_type)
                    found = self._pool.FindExtensionByNumber(message, wanted.extension_number)
                    self._add_files(response, self._pool.FindFileContainingSymbol(found.full_name))
                case "all_extension_numbers_of_type":
                    name = request.all_extension_numbers_of_type
                    message = self._pool.FindMessageTypeByName(name)
                    numbers = [extension.number for extension in self._pool.FindAllExtensions(message)]
                    response.all_extension_numbers_response.base_type_name = name
                    response.all_extension_numbers_response.extension_number.extend(numbers)
                case _:
                    raise KeyError("the question is empty")
        except KeyError as missing:
            response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
            response.error_response.error_message = f"not found: {missing.args[0]}"

    def _file_of(self, symbol: str) -> FileDescriptor:
        """The file that declares a message, an enum, a service or a method. Raises `KeyError`."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            owner, _, member = symbol.rpartition(".")
            file = self._pool.FindFileContainingSymbol(owner)
            service = file.services_by_name.get(owner.removeprefix(f"{file.package}."))
            if service is None or member not in service.methods_by_name:
                raise KeyError(symbol) from None
            return file

    def _add_files(self, response: v1alpha.ServerReflectionResponse, file: FileDescriptor) -> None:
        """Add a file and all its imports, so that the client needs no second question."""
        seen: dict[str, bytes] = {}

        def add(one: FileDescriptor) -> None:
            if one.name not in seen:
                seen[one.name] = commented_files().get(one.name, one.serialized_pb)
                for needed in one.dependencies:
                    add(needed)

        add(file)
        response.file_descriptor_response.file_descriptor_proto.extend(seen.values())


def handlers(services: Iterable[str]) -> list[grpc.GenericRpcHandler]:
    """The handlers of both reflection services. `services`: the full names to list."""
    packages = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
    reflection = Reflection([*services, *(f"{package}.ServerReflection" for package in packages)])
    method = grpc.stream_stream_rpc_method_handler(
        reflection.stream,
        request_deserializer=v1alpha.ServerReflectionRequest.FromString,
        response_serializer=v1alpha.ServerReflectionResponse.SerializeToString,
    )
    return [
        grpc.method_handlers_generic_handler(f"{package}.ServerReflection", {"ServerReflectionInfo": method})
        for package in packages
    ]

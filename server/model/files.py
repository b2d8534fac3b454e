"""Converts the files of a model and their hashes to messages."""

from collections.abc import Mapping

from deviceops.model.v1 import model_pb2
from domains import limits
from domains.model.content_hash import weights_hash
from domains.model.model import Component, FileStamp, ModelLayout

_FORMATS = {
    **{".safetensors": "safetensors", ".json": "json", ".txt": "text", ".gguf": "gguf"},
    **dict.fromkeys((".bin", ".ckpt", ".pt", ".pth", ".pkl"), "pickle"),
}
"""By the end of the file's name; others are `other`."""


def to_files(component: Component, stamps: Mapping[str, FileStamp]) -> list[model_pb2.ModelFile]:
    """The messages of a component's files."""
    return [_file(path, stamps.get(path)) for path in component.files[: limits.COMPONENT_FILES]]


def _file(path: str, stamp: FileStamp | None) -> model_pb2.ModelFile:
    ending = path[path.rfind(".") :] if "." in path else ""
    message = model_pb2.ModelFile(path=path, format=_FORMATS.get(ending.lower(), "other"))
    if stamp is not None:
        message.sha256, message.data_sha256 = stamp.sha256, stamp.data_sha256
        message.tensor_sha256, message.short_hash = stamp.tensor_sha256, stamp.short_hash
        message.blob_id = stamp.blob_id
        if stamp.size_bytes is not None:
            message.size_bytes = stamp.size_bytes
    return message


def component_sha256(component: Component, stamps: Mapping[str, FileStamp]) -> str:
    """The hash over a component's weights. Empty: it has none, or it was not computed."""
    if component.layout is ModelLayout.FILE:
        return ""  # the file has other components too
    weights = [path for path in sorted(component.files) if path.endswith(".safetensors")]
    return weights_hash(stamps[path].tensor_sha256 if path in stamps else "" for path in weights)

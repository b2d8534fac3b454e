"""Kinds of models and components as the contract's values."""

from deviceops.model.v1 import model_pb2
from domains.model.families import FAMILIES
from domains.model.kind import ModelKind

KINDS = {
    kind: model_pb2.ModelKind.Value(f"MODEL_KIND_{kind.name}") for kind in ModelKind if kind is not ModelKind.UNKNOWN
} | {ModelKind.UNKNOWN: model_pb2.MODEL_KIND_UNSPECIFIED}

_COMPONENTS = {part.id: part.kind for family in FAMILIES.values() for part in family.parts} | {
    "safety_checker": ModelKind.SAFETY_CLASSIFIER,
    "image_encoder": ModelKind.IMAGE_ENCODER,
    "controlnet": ModelKind.CONTROLNET,
}
"""By component id in the diffusers layout."""


def component_kind(component: str, kind: ModelKind = ModelKind.UNKNOWN) -> model_pb2.ModelKind.ValueType:
    """The kind of a component: its own, else what its id says."""
    return KINDS[kind if kind is not ModelKind.UNKNOWN else _COMPONENTS.get(component, ModelKind.UNKNOWN)]

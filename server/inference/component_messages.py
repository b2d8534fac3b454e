"""Converts the components that a generation takes from other models to and from messages."""

from collections.abc import Sequence

from deviceops.inference.v1 import resolved_generation_pb2
from deviceops.model.v1 import execution_pb2
from domains.inference.components import ComponentSource, ResolvedComponent
from domains.inference.generation import ResolvedGeneration

_TEXT = "text_encoder"


def from_component(message: execution_pb2.ComponentSource) -> ComponentSource:
    """A component of a request."""
    return ComponentSource(component_id=message.component_id, model_id=message.model_id, omitted=message.omitted)


def to_component(one: ComponentSource | ResolvedComponent) -> execution_pb2.ComponentSource:
    """The message of a component, as the caller asked for it or with every choice made."""
    return execution_pb2.ComponentSource(component_id=one.component_id, model_id=one.model_id, omitted=one.omitted)


def used_components(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedModel]:
    """The models that components were taken from."""
    return [
        resolved_generation_pb2.UsedModel(
            role=_TEXT if one.component_id.startswith(_TEXT) else one.component_id,
            model_id=one.model_id,
            sha256=one.model_sha256,
        )
        for one in resolved.components
        if one.model_id
    ]

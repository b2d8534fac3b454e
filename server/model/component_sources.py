"""The components that replace a model's own in a load. The model with these components has an id of its own."""

from collections.abc import Sequence

from deviceops.model.v1 import execution_pb2
from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.checks.components import source_exclusions, source_violations
from domains.model.assembly import Assembly, assembled_id
from server import convert
from server.inference.component_messages import from_component


def with_components(model_id: str, components: Sequence[execution_pb2.ComponentSource], path: str) -> str:
    """The id of the model with these components, or its own id where there are none.

    Raises INVALID_FIELD, UNSUPPORTED_COMBINATION, NOT_IMPLEMENTED for a precision of one component alone.
    """
    given = [from_component(one) for one in components]
    wrong = [*source_violations(given, path)]
    if given and not model_id:
        wrong.append(Violation(field=path, message="are of no model; name it in model_id"))
    unserved = [
        Violation(field=f"{path}[{place}].precision", message="this server does not serve it yet; leave it empty")
        for place, one in enumerate(components)
        if one.precision
    ]
    convert.refuse(wrong, unserved)
    if excluded := [*source_exclusions(given, path)]:
        raise InvalidRequest(excluded, ErrorReason.UNSUPPORTED_COMBINATION)
    return assembled_id(model_id, {one.component_id: one.model_id for one in given if one.model_id or one.omitted})


def to_components(assembly: Assembly) -> list[execution_pb2.ComponentSource]:
    """The messages of an assembly's components."""
    return [
        execution_pb2.ComponentSource(component_id=name, model_id=source, omitted=not source)
        for name, source in assembly.sources
    ]

"""Checks a Workflow message as RegisterWorkflow will: names, bindings, kinds, circles. Each finding names its place."""

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from deviceops.processing.v1 import workflow_pb2
from tests.contracts.workflow_paths import IMAGE_FILE, PathError, Value, fits, parse, source_of, target_of

PARAMETER_KINDS = {
    workflow_pb2.WORKFLOW_VALUE_KIND_TEXT: "text",
    workflow_pb2.WORKFLOW_VALUE_KIND_INTEGER: "integer",
    workflow_pb2.WORKFLOW_VALUE_KIND_NUMBER: "number",
    workflow_pb2.WORKFLOW_VALUE_KIND_FLAG: "flag",
    workflow_pb2.WORKFLOW_VALUE_KIND_IMAGE: "image",
}
OUTPUT_KINDS = {"text", "integer", "number", "flag", IMAGE_FILE}


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a workflow."""

    field: str
    """Path of the field: `steps[1].bindings[0].target`."""
    message: str
    """What is wrong and what would be right."""


def check(workflow: Any) -> list[Fault]:
    """Everything that is wrong, at once. Empty: the workflow compiles."""
    steps = {step.id: step for step in workflow.steps}
    faults = [fault for i, step in enumerate(workflow.steps) for fault in _step(f"steps[{i}]", step, workflow, steps)]
    for i, output in enumerate(workflow.outputs):
        faults += _output(f"outputs[{i}].source", output.source, steps)
    return faults + _circles(workflow, steps)


def _step(where: str, step: Any, workflow: Any, steps: dict[str, Any]) -> Iterator[Fault]:
    for i, binding in enumerate(step.bindings):
        place = f"{where}.bindings[{i}]"
        try:
            target = target_of(step, binding.target)
        except PathError as error:
            yield Fault(f"{place}.target", str(error))
            continue
        try:
            source = _source(binding, workflow, steps)
        except PathError as error:
            yield Fault(f"{place}.{_source_field(binding)}", str(error))
            continue
        yield from _fit(f"{place}.target", binding.target, source, target)
    yield from _overlaps(where, step)


def _source_field(binding: Any) -> str:
    return "step_output.path" if binding.WhichOneof("source") == "step_output" else "parameter"


def _source(binding: Any, workflow: Any, steps: dict[str, Any]) -> Value:
    if binding.WhichOneof("source") == "step_output":
        return _step_output(binding.step_output, steps)
    for parameter in workflow.parameters:
        if parameter.name == binding.parameter:
            return Value(PARAMETER_KINDS[parameter.kind], parameter.takes_list)
    raise PathError(f"the workflow has no parameter `{binding.parameter}`")


def _step_output(output: Any, steps: dict[str, Any]) -> Value:
    if output.step_id not in steps:
        raise PathError(f"the workflow has no step `{output.step_id}`")
    return source_of(steps[output.step_id], output.path)


def _fit(where: str, path: str, source: Value, target: Value) -> Iterator[Fault]:
    if not fits(source, target):
        yield Fault(where, f"takes {target.kind}, not {source.kind}")
    elif source.is_list and not target.is_list and not any(segment.every for segment in parse(path)):
        yield Fault(where, "takes one value, not a list; write `[*]` in the target or `[0]` in the source")


def _overlaps(where: str, step: Any) -> Iterator[Fault]:
    targets = [binding.target for binding in step.bindings]
    for i, target in enumerate(targets):
        for other in targets[:i]:
            if _meet(target, other):
                yield Fault(f"{where}.bindings[{i}].target", f"`{other}` is bound already")


def _meet(one: str, other: str) -> bool:
    """Whether two targets are one field, or one lies in the other. `[*]` meets every entry."""
    try:
        pairs = zip(parse(one), parse(other), strict=False)
    except PathError:
        return False
    return all(a.name == b.name and (a.every or b.every or None in {a.index, b.index} or a == b) for a, b in pairs)


def _output(where: str, source: Any, steps: dict[str, Any]) -> list[Fault]:
    try:
        value = _step_output(source, steps)
    except PathError as error:
        return [Fault(f"{where}.path", str(error))]
    handed_out = value.kind in OUTPUT_KINDS or value.is_enum
    return [] if handed_out else [Fault(f"{where}.path", f"a run cannot hand out {value.kind}")]


def _circles(workflow: Any, steps: dict[str, Any]) -> list[Fault]:
    graph: dict[str, set[str]] = {}
    for step in workflow.steps:
        bound = {b.step_output.step_id for b in step.bindings if b.WhichOneof("source") == "step_output"}
        graph[step.id] = (bound | set(step.depends_on)) & set(steps)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [Fault("steps", "circle: " + " → ".join(error.args[1]))]
    return []

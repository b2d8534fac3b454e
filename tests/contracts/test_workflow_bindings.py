"""What `workflow.proto` says about bindings, on the flagship workflow: generate → upscale → safety."""

import re
from typing import Any

import pytest

from deviceops.common.v1 import job_event_pb2
from deviceops.inference.v1 import generation_pb2
from deviceops.postprocessing.v1 import postprocessing_pb2
from deviceops.processing.v1 import batch_pb2, job_pb2, work_pb2, workflow_pb2
from tests.contracts.contract import Field, comment_of, message, messages
from tests.contracts.workflow_check import Fault, check
from tests.contracts.workflow_paths import RESULTS, PathError, Segment, parse

TEXT, INTEGER = workflow_pb2.WORKFLOW_VALUE_KIND_TEXT, workflow_pb2.WORKFLOW_VALUE_KIND_INTEGER


def parameter(target: str, name: str) -> workflow_pb2.WorkflowBinding:
    return workflow_pb2.WorkflowBinding(target=target, parameter=name)


def output(step: str, path: str) -> workflow_pb2.StepOutput:
    return workflow_pb2.StepOutput(step_id=step, path=path)


def result(target: str, step: str, path: str) -> workflow_pb2.WorkflowBinding:
    return workflow_pb2.WorkflowBinding(target=target, step_output=output(step, path))


def postprocessing(*steps: postprocessing_pb2.PostprocessingStep) -> work_pb2.WorkSpec:
    return work_pb2.WorkSpec(postprocessing=postprocessing_pb2.Postprocessing(steps=steps))


def flagship() -> workflow_pb2.Workflow:
    """Draws pictures, doubles their size, and lets none out that the policy withholds."""
    generation = generation_pb2.Generation(prompt="replaced", image_count=4)
    upscale = postprocessing_pb2.UpscaleStep(factor=2)
    safety = postprocessing_pb2.SafetyStep(policy_id="replaced")
    return workflow_pb2.Workflow(
        id="portrait-upscaled.v2",
        parameters=[
            workflow_pb2.WorkflowParameter(name="prompt", kind=TEXT),
            workflow_pb2.WorkflowParameter(name="count", kind=INTEGER, may_be_absent=True, minimum=1, maximum=16),
            workflow_pb2.WorkflowParameter(
                name="policy", kind=TEXT, default_values=[workflow_pb2.WorkflowValue(text="family")]
            ),
            workflow_pb2.WorkflowParameter(name="devices", kind=TEXT, takes_list=True, may_be_absent=True),
        ],
        steps=[
            workflow_pb2.WorkflowStep(
                id="draw",
                work=work_pb2.WorkSpec(generation=generation),
                bindings=[
                    parameter("work.generation.prompt", "prompt"),
                    parameter("work.generation.image_count", "count"),
                    parameter("devices.device_ids", "devices"),
                ],
                priority=job_event_pb2.PRIORITY_HIGH,
            ),
            workflow_pb2.WorkflowStep(
                id="enlarge",
                work=postprocessing(postprocessing_pb2.PostprocessingStep(upscale=upscale)),
                bindings=[result("work.postprocessing.inputs[*].image", "draw", "images[*].file")],
                fallback=job_event_pb2.FallbackPolicy(allow_other_device=True),
            ),
            workflow_pb2.WorkflowStep(
                id="check",
                work=postprocessing(postprocessing_pb2.PostprocessingStep(safety=safety)),
                bindings=[
                    result("work.postprocessing.inputs[*].image", "enlarge", "images[*].file"),
                    parameter("work.postprocessing.steps[0].safety.policy_id", "policy"),
                ],
            ),
        ],
        outputs=[workflow_pb2.WorkflowOutput(name="pictures", source=output("check", "images[*].file"))],
    )


def many() -> workflow_pb2.Workflow:
    """A batch as a step: one picture for each prompt of a list, all of them enlarged."""
    template = work_pb2.WorkSpec(generation=generation_pb2.Generation(negative_prompt="text"))
    upscale = postprocessing_pb2.PostprocessingStep(upscale=postprocessing_pb2.UpscaleStep())
    return workflow_pb2.Workflow(
        parameters=[workflow_pb2.WorkflowParameter(name="prompts", kind=TEXT, takes_list=True)],
        steps=[
            workflow_pb2.WorkflowStep(
                id="draw",
                batch=batch_pb2.Batch(template=template, fuse=True),
                bindings=[parameter("batch.items[*].work.generation.prompt", "prompts")],
            ),
            workflow_pb2.WorkflowStep(
                id="enlarge",
                work=postprocessing(upscale),
                bindings=[result("work.postprocessing.inputs[*].image", "draw", "images[0].file")],
            ),
        ],
        outputs=[workflow_pb2.WorkflowOutput(name="pictures", source=output("enlarge", "images[*].file"))],
    )


def test_the_flagship_workflow_compiles() -> None:
    assert check(flagship()) == []


def test_a_batch_over_a_list_compiles_as_a_step() -> None:
    assert check(many()) == []


def only(workflow: workflow_pb2.Workflow) -> Fault:
    faults = check(workflow)
    assert len(faults) == 1, faults
    return faults[0]


@pytest.mark.parametrize(
    ("step", "binding", "target", "says"),
    [
        (0, 0, "work.generation.promt", "Generation has no field `promt`"),
        (0, 0, "work.generation.prompt[0]", "`prompt` is no list"),
        (0, 0, "work.generation.prompt.text", "`prompt` has no fields"),
        (0, 0, "work.generation.width_px", "takes integer, not text"),
        (0, 0, "work.generation.sampling", "takes deviceops.inference.v1.Sampling, not text"),
        (0, 0, "work.postprocessing.preset_id", "the step's work is `generation`, not `postprocessing`"),
        (0, 0, "batch.items_blob_id", "`batch` is no target"),
        (0, 0, "display_name", "`display_name` is no target"),
        (0, 0, "run_timeout", "`run_timeout` is no target"),
        (0, 0, "work.generation.Prompt", "`Prompt` is no field"),
        (0, 2, "work.generation.model_id", "takes one value, not a list"),
        (1, 0, "work.postprocessing.inputs.image", "`inputs` is a list"),
        (1, 0, "work.postprocessing.inputs[0].image", "the template has no `inputs[0]`"),
        (1, 0, "work.postprocessing.inputs[*].steps[*].upscale", "at most one `[*]`"),
        (1, 0, "work.postprocessing.inputs[*].id", "takes text, not deviceops.common.v1.ImageFile"),
        (1, 0, "work.postprocessing.inputs", "takes deviceops.postprocessing.v1.PostprocessingInput"),
        (2, 1, "work.postprocessing.steps[1].safety.policy_id", "the template has no `steps[1]`"),
        (2, 1, "work.postprocessing.action", "Postprocessing has no field `action`"),
    ],
)
def test_a_wrong_target_is_refused_with_its_place(step: int, binding: int, target: str, says: str) -> None:
    workflow = flagship()
    workflow.steps[step].bindings[binding].target = target
    fault = only(workflow)
    assert fault.field == f"steps[{step}].bindings[{binding}].target"
    assert says in fault.message


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("pictures[*].file", "GenerationResult has no field `pictures`"),
        ("images.file", "`images` is a list"),
        ("images[*]file", "is no field"),
        ("images[00].file", "is no field"),
        ("images[10000].file", "is no field"),
        ("", "is no field"),
        ("images[*].file.blob_id.", "is no field"),
        ("images[*].failure.fail_time", "cannot be bound"),
        ("images[*]." + ".".join(["file"] * 60), "at most 255"),
    ],
)
def test_a_wrong_source_is_refused_with_its_place(path: str, says: str) -> None:
    workflow = flagship()
    workflow.steps[1].bindings[0].step_output.path = path
    fault = only(workflow)
    assert fault.field == "steps[1].bindings[0].step_output.path"
    assert says in fault.message


def test_names_that_the_workflow_lacks_are_refused() -> None:
    workflow = flagship()
    workflow.steps[0].bindings[0].parameter = "promt"
    workflow.steps[1].bindings[0].step_output.step_id = "drow"
    workflow.outputs[0].source.step_id = "chek"
    assert {fault.field for fault in check(workflow)} == {
        "steps[0].bindings[0].parameter",
        "steps[1].bindings[0].step_output.path",
        "outputs[0].source.path",
    }


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("work.postprocessing.inputs[*].image", "images[*].file"),
        ("work.postprocessing.inputs[*].image.blob_id", "images[*].file.blob_id"),
        ("work.postprocessing.inputs[0].image", "images[0].file"),
    ],
)
def test_one_field_is_bound_once(target: str, path: str) -> None:
    workflow = flagship()
    workflow.steps[1].work.postprocessing.inputs.add()
    workflow.steps[1].bindings.append(result(target, "draw", path))
    assert only(workflow) == Fault(
        "steps[1].bindings[1].target", "`work.postprocessing.inputs[*].image` is bound already"
    )


def test_the_pattern_of_a_spread_is_one_entry() -> None:
    workflow = flagship()
    entries = workflow.steps[1].work.postprocessing.inputs
    entries.add(id="pattern")
    assert check(workflow) == []
    entries.add(id="second")
    assert "at most one is the pattern" in only(workflow).message


def test_a_circle_is_found() -> None:
    workflow = flagship()
    workflow.steps[0].depends_on.append("check")
    assert "circle" in only(workflow).message


def test_what_a_run_hands_out_is_a_picture_or_a_plain_value() -> None:
    workflow = flagship()
    workflow.outputs[0].source.path = "images[*].safety_verdicts[*].action"
    assert check(workflow) == []
    workflow.outputs[0].source.path = "images[0].safety_verdicts[0]"
    assert "cannot hand out deviceops.postprocessing.v1.SafetyVerdict" in only(workflow).message


def test_a_batch_gives_a_list_even_of_single_values() -> None:
    workflow = many()
    upscale = workflow.steps[1]
    upscale.work.postprocessing.inputs.add()
    upscale.bindings[0].target = "work.postprocessing.inputs[0].image"
    assert "takes one value, not a list" in only(workflow).message


def test_paths_are_read_as_the_contract_says() -> None:
    assert parse("images[*].file") == (Segment("images", every=True), Segment("file"))
    assert parse("steps[9999].id")[0] == Segment("steps", index=9999)
    with pytest.raises(PathError, match="is no field"):
        parse("images[-1].file")


def test_every_kind_of_work_has_the_result_that_job_spec_names() -> None:
    """RESULTS, the comments of JobSpec and the result of Job are one list."""
    spec, file = next((m, f) for f, m in messages() if m.name == "JobSpec")
    said = {f.name: re.search(r"Ends with an? (\w+)\.", comment_of(Field(file, spec, f))) for f in spec.field}
    names = {name: found[1] for name, found in said.items() if found}
    assert set(names) == {f.name for f in spec.field}
    results: Any = job_pb2.Job.DESCRIPTOR.fields_by_name
    assert {arm: results[result].message_type.name for arm, result in RESULTS.items()} == {
        arm: name for arm, name in names.items() if arm in RESULTS
    }
    assert set(names) - set(RESULTS) == {"workflow_run", "batch"}


def test_work_specs_are_job_specs_without_parts() -> None:
    numbers = {f.name: (f.number, f.type_name) for f in message(".deviceops.processing.v1.WorkSpec").field}
    all_of_them = {f.name: (f.number, f.type_name) for f in message(".deviceops.processing.v1.JobSpec").field}
    assert numbers == {name: of for name, of in all_of_them.items() if name not in {"workflow_run", "batch"}}

"""The defaults of the records of generations.

`python -m tests.domains.inference.test_record_defaults` writes `record_defaults.txt` anew.
"""

from pathlib import Path

from domains.inference import (
    components,
    controls,
    details,
    detections,
    fallback,
    fields,
    generation,
    given,
    hires,
    image_prompts,
    init_image,
    kept_file,
    kept_readings,
    latents,
    loras,
    manifest,
    masks,
    outcome,
    own_walk,
    pass_plan,
    preprocessors,
    prompt_plan,
    references,
    refiner,
    regions,
    samplers,
    seed_variation,
    size_conditioning,
    step_range,
    textual_inversions,
)
from domains.inference.prompts import prompt, shown, step_edits
from domains.inference.recipes import comfyui, invokeai, recipe
from domains.inference.solvers import flow_sigmas, line, plan, table, walk
from tests.domains.record_defaults import defaults_of

FILE = Path(__file__).with_name("record_defaults.txt")
RECORDS = (
    components,
    controls,
    details,
    detections,
    fallback,
    fields,
    generation,
    given,
    hires,
    image_prompts,
    init_image,
    kept_file,
    kept_readings,
    latents,
    loras,
    manifest,
    masks,
    outcome,
    own_walk,
    pass_plan,
    preprocessors,
    prompt_plan,
    references,
    refiner,
    regions,
    samplers,
    seed_variation,
    size_conditioning,
    step_range,
    textual_inversions,
    prompt,
    shown,
    step_edits,
    comfyui,
    invokeai,
    recipe,
    flow_sigmas,
    line,
    plan,
    table,
    walk,
)


def test_a_record_that_does_not_say_a_field_means_what_it_always_meant() -> None:
    meant = "meant? then run python -m tests.domains.inference.test_record_defaults"
    assert defaults_of(RECORDS) == FILE.read_text("utf-8"), meant


if __name__ == "__main__":
    FILE.write_text(defaults_of(RECORDS), encoding="utf-8")

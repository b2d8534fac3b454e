"""The capability list is the whole truth: a field that it names is served within its range, any other is refused by name."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor

from deviceops.common.v1 import error_pb2
from deviceops.inference.v1 import generation_pb2, inference_service_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.imaging import encode
from domains.inference.fields import FIELDS, SECOND, THIRD, Field
from domains.inference.masks import SIDES
from domains.inference.size_conditioning import AS_MADE
from tests.server import asking
from tests.server.generation_paths import field_at, leaf_paths, plain, put
from tests.server.harness import RunningServer
from tests.server.test_capabilities import OF_EDITORS, OF_GUIDANCE
from tests.server.test_image_to_image import upload

LEAVES = list(leaf_paths())
_FLOATING = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_NUMERIC = (
    *_FLOATING,
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)
PNG = encode(np.zeros((64, 72, 3), np.uint8), "image/png")
NO_BLOB = "no-blob"
"""A blob that the server does not have; tests of latents have some."""
NEEDS: dict[str, dict[str, object]] = {
    "width_px": {"height_px": 64},
    "height_px": {"width_px": 64},
    "output.quality": {"output.media_type": "image/jpeg"},
    "sampling.eta": {"sampling.sampler": "ddim"},
    "sampling.seed_variation.seed": {"sampling.seed_variation.strength": 0.5},
    "sampling.solver_order": {"sampling.sampler": "unipc"},
    **{f"sampling.{name}": {"sampling.sampler": "euler"} for name in ("timestep_spacing", "sigmas", "timesteps")},
    "sampling.sigma_schedule": {"sampling.sampler": "euler"},
    **{
        f"sampling.{name}": {"sampling.sampler": "euler", "sampling.steps": 1000}
        for name in ("first_step", "last_step")
    },
    "init_image.strength": {"init_image.image.data": PNG},
    "init_image.fit": {"init_image.image.data": PNG},
    "init_latents.strength": {"init_latents.blob_id": NO_BLOB},
    **{f"components.{name}": {"components.component_id": "vae"} for name in ("model_id", "omitted", "precision")},
    "reference_images.fit": {"reference_images.image.data": PNG},
}
"""What a field cannot be set without."""
MASK = encode(np.zeros((64, 72), np.uint8), "image/png")
NO_LORA = "no-lora"
"""A LoRA that the server does not have; tests of models have some."""
SOME: dict[str, object] = {
    "model_id": "emoji-sd",
    "loaded_model_id": "emoji-sd@cpu",
    "width_px": 72,
    "height_px": 72,
    "previews.max_edge_px": 20,
    "output.bit_depth": 8,
    "loras.model_id": NO_LORA,
    "regions.loras.model_id": NO_LORA,
    "textual_inversions.model_id": NO_LORA,
    "init_image.image.data": PNG,
    "mask.image.data": MASK,
    "init_latents.blob_id": NO_BLOB,
    "sampling.sigmas": [9.0, 0.0],
    "sampling.timesteps": [9],
    **{f"outpaint.{side}": 16 for side in SIDES},
    "controls.model_id": NO_LORA,
    "controls.image.data": PNG,
    "controls.region.data": MASK,
    "regions.mask.data": MASK,
    **{f"regions.rectangle.{side}": 8 for side in ("left_px", "top_px", "width_px", "height_px")},
    "image_prompts.model_id": NO_LORA,
    "image_prompts.images.data": PNG,
    "image_prompts.region.data": MASK,
    "image_prompts.negative_image.data": PNG,
    "controls.preprocessing.tile.downscale": 2.0,
    "components.component_id": "vae",
    "components.model_id": NO_LORA,
    "hires_pass.scale": 1.5,
    "hires_pass.size.width_px": 512,
    "hires_pass.size.height_px": 512,
    "refiner.model_id": NO_LORA,
    "hires_pass.model_id": NO_LORA,
    "hires_pass.upscaler_model_id": NO_LORA,
    "detail_passes.detector_model_id": NO_LORA,
    "detail_passes.edge_px": 512,
    # The server's model needs all of its components.
    "components.omitted": False,
    "controls.preprocessing.canny.low_threshold": 50,
    "controls.preprocessing.canny.high_threshold": 150,
}
"""Values of fields that do not take any."""


@pytest.fixture(scope="module")
def listed(server: RunningServer) -> set[str]:
    # A device is listed once its worker has tried it; the job leaves its model loaded.
    asking.watch(server, asking.submit(server))
    request = inference_service_pb2.GetInferenceCapabilitiesRequest()
    told = server.inference.GetInferenceCapabilities(request).capabilities
    return {field.field for capability in told for field in capability.fields}


def with_needs(path: str, value: object = None) -> generation_pb2.Generation:
    generation = generation_pb2.Generation()
    needs = NEEDS.get(path, {})
    if path.startswith("loras."):
        needs = {"loras.model_id": NO_LORA, "loras.component_weights.component_id": "unet"}
    if path.startswith("textual_inversions."):
        needs = {"textual_inversions.model_id": NO_LORA}
    if path.startswith("mask."):
        needs = {"init_image.image.data": PNG, "mask.image.data": MASK, "mask.zoom_to_mask": True}
        needs = {} if path.startswith("mask.image") else needs
        needs |= {"init_image.image.data": PNG}
    if path.startswith("outpaint."):
        needs = {"init_image.image.data": PNG, "outpaint.left_px": 8, "outpaint.top_px": 8}
    if path.startswith("hires_pass.size."):
        edges = ("width_px", "height_px")
        needs = {f"{size}{edge}": 64 for size in ("", "hires_pass.size.") for edge in edges}
    if path.startswith("detail_passes."):
        needs = {"detail_passes.detector_model_id": NO_LORA}
    if path.startswith("refiner."):
        needs = {"refiner.model_id": NO_LORA}
    if path.startswith("controls."):
        needs = {"controls.model_id": NO_LORA, "controls.image.data": PNG}
        needs = {"controls.model_id": NO_LORA} if path.startswith("controls.image") else needs
        other = {"low": ("high", 255), "high": ("low", 0)}.get(path.rpartition(".")[2].removesuffix("_threshold"))
        needs |= {} if other is None else {f"controls.preprocessing.canny.{other[0]}_threshold": other[1]}
    if path.startswith("regions."):
        box = {f"regions.rectangle.{side}": 8 for side in ("width_px", "height_px")}
        needs = {} if path.startswith("regions.mask") else dict(box)
        lora = {"regions.loras.model_id": NO_LORA, "regions.loras.component_weights.component_id": "unet"}
        needs |= lora if path.startswith("regions.loras") else {}
    if path.startswith("image_prompts."):
        images = {} if path.startswith("image_prompts.images") else {"image_prompts.images.data": PNG}
        needs = {"image_prompts.model_id": NO_LORA, **images}
    for needed, what in needs.items():
        if needed != path:
            put(generation, needed, what)
    put(generation, path, value)
    return generation


def blob_of(server: RunningServer) -> str:
    """A blob with a picture."""
    job = asking.watch(server, asking.submit(server))[-1]
    return job.generation_result.images[0].file.blob_id


def findings(server: RunningServer, generation: generation_pb2.Generation) -> list[error_pb2.Finding]:
    spec = job_pb2.JobSpec(generation=generation)
    request = processing_service_pb2.SubmitJobRequest(spec=spec, validate_only=True)
    return list(server.processing.SubmitJob(request, timeout=asking.CALL_S).findings)


def refused_paths(server: RunningServer, generation: generation_pb2.Generation) -> list[str]:
    nowhere = f"no model '{NO_LORA}'", f"no blob '{NO_BLOB}'"
    found = [one for one in findings(server, generation) if not any(text in one.message for text in nowhere)]
    return [plain(finding.field).removeprefix("spec.generation.") for finding in found]


def test_the_list_names_only_fields_that_there_are(listed: set[str]) -> None:
    assert listed <= set(LEAVES)


def test_every_field_that_is_not_listed_is_refused_by_its_path(server: RunningServer, listed: set[str]) -> None:
    # The models here have no refiner; a server that has one refuses it by its family.
    unlisted = [path for path in LEAVES if path not in listed and not path.startswith("refiner.")]
    assert len(unlisted) > 50, "the contract has more than this server serves"
    told = {path: refused_paths(server, with_needs(path)) for path in unlisted}
    assert {path: paths for path, paths in told.items() if paths != [path]} == {}


def test_every_listed_field_is_taken_with_each_value_that_it_allows(server: RunningServer, listed: set[str]) -> None:
    some = {**SOME, "init_image.image.blob_id": blob_of(server), "mask.image.blob_id": upload(server, MASK)}
    some |= {f"controls.{name}.blob_id": some["mask.image.blob_id"] for name in ("image", "region")}
    some |= {"regions.mask.blob_id": some["mask.image.blob_id"]}
    some |= {
        f"image_prompts.{name}.blob_id": some["mask.image.blob_id"] for name in ("images", "region", "negative_image")
    }
    for path in listed - set(OF_EDITORS):
        for value in FIELDS[path].allowed or [some.get(path)]:
            assert refused_paths(server, with_needs(path, value)) == [], (path, value)


@pytest.mark.parametrize("path", [path for path, field in FIELDS.items() if field.allowed])
def test_a_value_that_is_not_allowed_is_refused_by_its_path(server: RunningServer, path: str) -> None:
    enum = field_at(path).enum_type
    others = [value.name for value in enum.values[1:]] if enum else ["x"]
    for value in others:
        if value not in FIELDS[path].allowed:
            assert refused_paths(server, with_needs(path, value)) == [path], value


def sized(field: Field, size: float) -> object:
    """A value of that size: a number, a text of so many bytes, or a list of so many entries."""
    if field.unit == "bytes":
        return "x" * int(size)
    return list(range(int(size)))[::-1] if field.path in LISTS else size


def beyond(field: Field, bound: float, way: Callable[[float, float], float], away: float) -> float:
    """The nearest value outside."""
    if isinstance(bound, float):
        return math.nextafter(bound, away)
    return way(bound, field.multiple_of or 1)


LISTS = ("sampling.seeds", "sampling.sigmas", "sampling.timesteps")
"""Fields whose bounds are those of the number of entries."""
NOT_OF_THE_MODEL = (*SECOND, *THIRD, "sampling.flow_shift", *OF_GUIDANCE, *OF_EDITORS, *AS_MADE.by_path)
"""The server's model has one text encoder, is told no sizes and is no flow model."""
RANGES = [field for field in FIELDS.values() if field.bounds]


@pytest.mark.parametrize("field", RANGES, ids=lambda field: field.path)
def test_a_range_holds_at_its_ends_and_no_further(server: RunningServer, field: Field) -> None:
    assert field.bounds
    low, high = field.bounds
    for inside in (low, high):
        unread = field.path in NOT_OF_THE_MODEL and (inside or field.path in (*OF_GUIDANCE, *OF_EDITORS))
        refused = [field.path] if unread else []
        assert refused_paths(server, with_needs(field.path, sized(field, inside))) == refused, inside
    below = beyond(field, low, lambda value, step: value - step, -math.inf)
    if field.unit != "bytes" and field.path not in LISTS and not (below == 0 and field.zero_is_unset):
        assert refused_paths(server, with_needs(field.path, below)) == [field.path]
    above = beyond(field, high, lambda value, step: value + step, math.inf)
    if above < 2**63:
        assert refused_paths(server, with_needs(field.path, sized(field, above))) == [field.path]


NUMBERS = [path for path in FIELDS if field_at(path).cpp_type in _NUMERIC]
WITHIN_THE_PICTURE = [f"regions.rectangle.{side}" for side in ("left_px", "top_px", "width_px", "height_px")]
"""Their range is that of the picture (`test_regions`)."""


def test_every_number_that_is_served_has_a_range() -> None:
    assert [path for path in NUMBERS if FIELDS[path].bounds is None] == WITHIN_THE_PICTURE


@pytest.mark.parametrize("path", [path for path in NUMBERS if field_at(path).cpp_type in _FLOATING])
def test_what_is_no_number_is_refused(server: RunningServer, path: str) -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert set(refused_paths(server, with_needs(path, [value, 0.0] if path in LISTS else value))) == {path}, value


@pytest.mark.parametrize("path", [field.path for field in RANGES if field.zero_is_unset])
def test_zero_leaves_the_choice_where_it_stands_for_not_said(server: RunningServer, path: str) -> None:
    assert refused_paths(server, with_needs(path, 0)) == []
    assert refused_paths(server, with_needs(path, -1)) == [path]


@pytest.mark.parametrize("path", [field.path for field in RANGES if field.multiple_of])
def test_what_is_no_multiple_is_refused(server: RunningServer, path: str) -> None:
    step = FIELDS[path].multiple_of
    assert step
    (finding,) = findings(server, with_needs(path, 64 + step // 2))
    assert plain(finding.field) == f"spec.generation.{path}"
    assert "multiple" in finding.message

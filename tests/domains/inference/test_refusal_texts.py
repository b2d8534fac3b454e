"""What callers read when a generation is refused: which field, what is wrong with it, and what is allowed.

The requests are those of the tests of each check. `python -m tests.domains.inference.test_refusal_texts` writes
`refusals.txt` anew, one line a refusal, so that a changed text is seen in a review.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from domains.errors import DeviceOpsError, InvalidRequest
from domains.inference import limits
from domains.inference.checks.request import violations
from domains.inference.components import ComponentSource
from domains.inference.controls import Control
from domains.inference.details import DetailPass
from domains.inference.generation import EncodeOptions, Generation, ManifestDetail, Previews, Sampling, WeightedPrompt
from domains.inference.hires import HiresPass
from domains.inference.image_fit import ImageFit
from domains.inference.image_prompts import ImagePrompt
from domains.inference.init_image import InitImage
from domains.inference.masks import InpaintMask
from domains.inference.own_walk import OwnWalk
from domains.inference.prompts import Syntax
from domains.inference.references import Reference
from domains.inference.refiner import RefinerPass
from domains.inference.regions import Region
from domains.inference.resolution.request_files import NOTHING_READ, RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.inference.samplers import SAMPLERS
from domains.inference.seed_variation import SeedVariation
from domains.inference.size_conditioning import AS_MADE
from domains.model.families import FAMILIES
from domains.model.model import Model
from tests.domains.inference import (
    test_adapter_checks,
    test_detail_checks,
    test_guide_checks,
    test_hires_checks,
    test_mask_checks,
    test_request_files,
    test_resolve,
    test_step_checks,
    test_walk_checks,
)
from tests.domains.inference.on_device.requests import embedded_model

FILE = Path(__file__).with_name("refusals.txt")
MODEL = replace(embedded_model(), train_steps=1000)
PICTURE = test_guide_checks.PICTURE
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "a prompt that is too long": {"prompt": "x" * (limits.PROMPT_BYTES + 1)},
    "edges": {"width_px": 5, "height_px": 4104},
    "an edge between multiples": {"width_px": 65, "height_px": 4095},
    "pictures": {"image_count": 0},
    "too many pictures": {"image_count": 1001},
    "clip_skip": {"clip_skip": 13},
    "blended": {"blended_prompts": (WeightedPrompt(prompt="", weight=-1.0), WeightedPrompt(prompt="x", weight=99.0))},
    "a composition": {"prompt": "a AND b", "blended_prompts": (WeightedPrompt(prompt="c AND d"),)},
    "a composition with ranges": {
        "prompt": "a AND b",
        "sampling": Sampling(guidance_end_ratio=0.5, guidance_rescale=0.5),
    },
    "a composition without guidance": {"prompt": "a AND b", "sampling": Sampling(guidance_scale=1.0)},
    "parts": {"prompt": " AND ".join("abcdefghijklmnopqrstuvwxyz")},
    "edits": {"prompt": "[a|b]" * (limits.PROMPT_EDITS + 1)},
    "seeds": {"sampling": Sampling(seed=-1)},
    "a list of seeds": {"sampling": Sampling(seeds=(1, -1)), "image_count": 3},
    "both seeds": {"sampling": Sampling(seed=1, seeds=(2,))},
    "sampling": {
        "sampling": Sampling(
            sampler="none", sigma_schedule="none", steps=0, guidance_scale=-1.0, eta=2.0, guidance_rescale=2.0
        )
    },
    "guidance": {"sampling": Sampling(guidance_start_ratio=0.5, guidance_end_ratio=0.5)},
    "distilled": {"sampling": Sampling(distilled_guidance=-1.0, image_guidance_scale=-1.0)},
    "threshold": {"sampling": Sampling(dynamic_threshold_ratio=0.9)},
    "variation": {"sampling": Sampling(seed_variation=SeedVariation(seed=-1, strength=2.0))},
    "eta for euler": {"sampling": Sampling(sampler="euler", eta=0.5)},
    "a schedule for ddim": {"sampling": Sampling(sampler="ddim", sigma_schedule="karras")},
    "previews": {"previews": Previews(every_steps=-1, max_edge_px=9999)},
    "sizes": {"size_conditioning": replace(AS_MADE, original_px=(-1, 5), crop_left_px=-1, crop_top_px=4097)},
    "sizes of no family": {"size_conditioning": replace(AS_MADE, target_px=(0, 9))},
    "image prompts without region": {"detail_passes": (DetailPass(),), "regions": (Region(rectangle=None),)},
    "detail and image prompt": {
        "detail_passes": (DetailPass(),),
        "image_prompts": (ImagePrompt(model_id="a", images=(PICTURE,), region=PICTURE),),
    },
    "refiner": {"refiner": RefinerPass(model_id="", start_ratio=2.0, aesthetic_score=-1.0)},
    "refiner and regions": {
        "refiner": RefinerPass(model_id="r"),
        "regions": (Region(prompt="a cat", mask=PICTURE),),
    },
    "lossless jpeg": {"output": EncodeOptions(media_type="image/jpeg", lossless=True)},
    "a quality without loss": {"output": EncodeOptions(media_type="image/webp", lossless=True, quality=90)},
    "bits": {"output": EncodeOptions(media_type="image/png", bit_depth=10)},
    "quality": {"output": EncodeOptions(media_type="image/webp", quality=101)},
    "a type": {"output": EncodeOptions(media_type="image/tiff")},
    "references": {"references": (Reference(image=PICTURE),) * (limits.REFERENCES + 1)},
    "references without pictures": {
        "references": (Reference(image=PICTURE), Reference(), Reference(image=PICTURE, fit=ImageFit.CONTAIN))
    },
    "references and others": {
        "references": (Reference(image=PICTURE),),
        "controls": (Control(model_id="a", image=PICTURE),),
        "image_prompts": (ImagePrompt(model_id="a", images=(PICTURE,)),),
        "regions": (Region(prompt="a cat", mask=PICTURE),),
        "refiner": RefinerPass(model_id="r"),
        "hires_pass": HiresPass(),
    },
    "references and a part": {
        "references": (Reference(image=PICTURE),),
        "init_image": InitImage(blob_id="b-1"),
        "mask": InpaintMask(blob_id="b-2", zoom_to_mask=True),
    },
    "references for a model that sees none": {"references": (Reference(image=PICTURE),)},
    "guidance by a picture that is not seen": {"sampling": Sampling(image_guidance_scale=1.5)},
    "components": {
        "components": tuple(ComponentSource(component_id=f"c{n}", model_id="m") for n in range(limits.COMPONENTS + 1))
    },
    "components without names": {
        "components": tuple(ComponentSource(component_id=name, model_id="m") for name in ("vae", "", "vae", "unet"))
    },
    "a component that is left out and named": {
        "components": (
            ComponentSource(component_id="vae", model_id="m"),
            ComponentSource(component_id="text_encoder", model_id="m", omitted=True),
        )
    },
    "components of a loaded model": {
        "loaded_model_id": "lm-1",
        "components": (ComponentSource(component_id="vae", model_id="m"),),
    },
    "parameters": {"output": EncodeOptions(a1111_parameters=True, manifest=ManifestDetail.NONE)},
}
"""One wrong request each, beside those of the other tests."""


def refusals() -> str:
    """A line for each refusal; no two are the same."""
    return "".join(f"{line}\n" for line in dict.fromkeys(_lines()))


def _lines() -> Iterator[str]:
    for name, generation in _requests():
        yield from _told(name, violations(generation).alone)
        yield from _told(name, violations(generation).together)
    for name, generation, model, read in _resolved():
        try:
            resolve(generation, model, read)
        except InvalidRequest as refused:
            yield from _told(f"{name} [{refused.reason}]", refused.violations)
        except DeviceOpsError as refused:
            yield f"{name} [{refused.reason}] | {_short(refused.message)}"


def _told(name: str, wrong: Iterable[Any]) -> Iterator[str]:
    for one in wrong:
        yield f"{name} | {one.field} | {_short(one.message)} | {_short(one.allowed)}"


def _short(text: str) -> str:
    """Without what Pillow was built with."""
    return re.sub(r"(image/\w+(, )?)+", "image/…", text)[:400].replace("\n", "⏎")


def _with(fields: Mapping[str, Any]) -> Generation:
    plain: dict[str, Any] = {"prompt": "owl", "prompt_syntax": Syntax.A1111, **fields}
    return Generation(**plain)


def _requests() -> Iterator[tuple[str, Generation]]:
    for name, fields in FIELDS.items():
        yield name, _with(fields)
    for name, (generation, _) in test_adapter_checks.FAULTS.items():
        yield name, generation
    plain: Mapping[str, Any] = test_detail_checks.ALONE
    for name, fields in plain.items():
        yield f"detail {name}", test_detail_checks.asked(DetailPass(), DetailPass(**fields))
    yield "detail areas", test_detail_checks.asked(DetailPass(min_area=0.5, max_area=0.4))
    yield "detail passes", test_detail_checks.asked(*[DetailPass()] * 9)
    for name, (_, fields) in test_detail_checks.TOGETHER.items():
        yield f"detail and {name}", test_detail_checks.asked(DetailPass(steps=4), **fields)
    guides = test_guide_checks
    for entry, field in guides.CONTROLS:
        yield f"control {field}", Generation(prompt="p", controls=(entry,))
    for entry, field in guides.PROMPTS:
        yield f"image prompt {field}", Generation(prompt="p", image_prompts=(entry,))
    for entry, field in guides.REGIONS:
        yield f"region {field}", Generation(prompt="p", regions=(entry,))
    for changes, field in guides.RANGES:
        yield f"control {field}", Generation(prompt="p", controls=(guides.control(**changes),))
        yield f"region {field}", Generation(prompt="p", regions=(guides.region(**changes),))
    yield "controls", Generation(prompt="p", controls=(guides.control(),) * 9)
    yield "image prompts", Generation(prompt="p", image_prompts=(guides.prompt(),) * 9)
    yield "regions", Generation(prompt="p", regions=(guides.region(),) * 17)
    for hires, field in test_hires_checks.ALONE:
        yield f"second pass {field}", Generation(prompt="p", hires_pass=hires)
    for fields, field in test_hires_checks.TOGETHER:
        yield f"second pass with {field}", _with({"hires_pass": HiresPass(), **fields})
    for name, (fields, _) in (test_mask_checks.BAD | test_mask_checks.TOGETHER).items():
        yield f"mask: {name}", test_mask_checks.asked(**fields)


def _resolved() -> Iterator[tuple[str, Generation, Model, Any]]:
    for name, fields in FIELDS.items():
        yield name, _with(fields), MODEL, NOTHING_READ
    walks = test_walk_checks
    for own, field in walks.WRONG:
        yield f"walk {field}", walks.asked(own), MODEL, NOTHING_READ
    for own, sampling, field in walks.EXCLUDED:
        yield f"walk without {field}", walks.asked(own, **sampling), MODEL, NOTHING_READ
    for own, name, field in walks.FOR_OTHERS:
        yield f"walk of {name} {field}", walks.asked(own), walks.MODELS[name], NOTHING_READ
    for option, value in walks.OPTIONS.items():
        yield f"walk {option} for ddim", walks.asked({option: value}, "ddim"), MODEL, NOTHING_READ
        yield f"walk {option} for lcm", walks.asked({option: value}, "lcm"), MODEL, NOTHING_READ
    for name in ("lcm", "tcd", "dpmpp_2m"):
        many = Sampling(sampler=name, steps=(SAMPLERS[name].most_steps or 999) + 1)
        yield f"steps of {name}", Generation(prompt="", sampling=many), replace(MODEL, train_steps=999), NOTHING_READ
    for part, changes, _, field in test_step_checks.WRONG:
        picture = None if changes.get("picture") is False else test_step_checks.PICTURE
        read = RequestFiles(picture=picture, mask=test_step_checks.PICTURE if "mask" in changes else None)
        yield f"steps {field}", test_step_checks.asked(part, **changes), embedded_model(), read
    files = test_request_files
    for name, ((generation, read), model, _, _) in files.UNFIT.items():
        yield name, generation, model, read
    for name, (model, base, request) in files.NAMED.items():
        for how, (changes, _, _) in files.OTHERWISE.items():
            yield f"{name} {how}", request(replace(model, **changes))[0], base, request(replace(model, **changes))[1]
        others = replace(model, compatible_families=("sd2", "flux1"))
        yield f"{name} of another family", request(others)[0], base, request(others)[1]
    for family in test_resolve.FAMILIES_THAT_READ:
        kind = FAMILIES[family].prediction_types[0]
        model = replace(test_resolve.a_model(512, 512), family=family, prediction_type=kind)
        for field, generation in test_resolve.READ_OTHERWISE.items():
            yield f"{field} for {family}", generation, model, NOTHING_READ
    yield "no size", Generation(prompt="owl"), test_resolve.a_model(0, 0), NOTHING_READ
    flow = walks.MODELS["flow"]
    for sampler in ("ddim", "euler_a"):
        asked = Generation(prompt="owl", sampling=Sampling(sampler=sampler, own=OwnWalk()))
        yield f"{sampler} for flow", asked, flow, NOTHING_READ


def test_a_refusal_tells_callers_what_it_told_before() -> None:
    meant = "meant? then run python -m tests.domains.inference.test_refusal_texts"
    assert refusals() == FILE.read_text("utf-8"), meant


if __name__ == "__main__":
    FILE.write_text(refusals(), encoding="utf-8")

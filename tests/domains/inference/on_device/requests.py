"""Resolved requests and the models they are for."""

from functools import cache
from typing import Any

import msgspec

from domains.inference.generation import EncodeOptions, Previews, ResolvedGeneration
from domains.inference.guidance import default_distilled
from domains.model.catalogue import embedded_models
from domains.model.families import FAMILIES
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model


@cache
def embedded_model() -> Model:
    """The model that comes with the package."""
    return next(model for model in embedded_models(Fingerprints()) if model.id == "emoji-sd")


def request(model: Model, like: ResolvedGeneration | None = None, **changes: Any) -> ResolvedGeneration:
    """A request for one picture at the model's native size, changed as asked."""
    plain = like or ResolvedGeneration(
        model_id=model.id,
        model_sha256=model.sha256,
        family=model.family,
        prompt="owl",
        negative_prompt="",
        width_px=model.native_width_px,
        height_px=model.native_height_px,
        sampler="dpmpp_2m",
        sigma_schedule="normal",
        steps=4,
        guidance_scale=5.0,
        eta=None,
        distilled_guidance=default_distilled(model),
        seeds=(7,),
        output=EncodeOptions(),
        previews=Previews(),
    )
    return msgspec.structs.replace(plain, **changes)


def their_guidance(wanted: ResolvedGeneration) -> dict[str, Any]:
    """Arguments of diffusers' pipelines for guidance and negative prompt, one a picture."""
    reads = FAMILIES[wanted.family].reads_negative(wanted.guidance_scale)
    texts = {"negative_prompt": [wanted.negative_prompt] * len(wanted.seeds)}
    if wanted.family == "flux1":
        # Not all of its pipelines know a negative prompt.
        told = {"true_cfg_scale": wanted.guidance_scale, **texts} if reads else {}
        return {"guidance_scale": wanted.distilled_guidance or 0.0, **told}
    return {"guidance_scale": wanted.guidance_scale, **(texts if reads and wanted.negative_prompt else {})}

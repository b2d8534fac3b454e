"""Resolved requests and the models they are for."""

from functools import cache
from typing import Any

import msgspec

from domains.inference.generation import EncodeOptions, Previews, ResolvedGeneration
from domains.model.catalogue import embedded_models
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
        seeds=(7,),
        output=EncodeOptions(),
        previews=Previews(),
    )
    return msgspec.structs.replace(plain, **changes)
